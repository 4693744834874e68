#include "common/routing/names.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace updraft {
namespace {

// Every value has a name of its own and comes back from it. That no value is without one, the compiler sees (names.cc).
template <typename E>
void ExpectNamed() {
  std::set<std::string_view> names;
  size_t n = 0;
  for (const E value : AllOf<E>()) {
    EXPECT_EQ(static_cast<size_t>(value), n++);
    EXPECT_FALSE(NameOf(value).empty());
    EXPECT_TRUE(names.insert(NameOf(value)).second) << NameOf(value) << " twice";
    EXPECT_EQ(FromName<E>(NameOf(value)), value);
  }
  EXPECT_GT(n, 1u);
  for (size_t other = n; other < 256; ++other) EXPECT_EQ(NameOf(static_cast<E>(other)), "unknown") << other;
  EXPECT_FALSE(FromName<E>("unknown").has_value());
  EXPECT_FALSE(FromName<E>("").has_value());
}

TEST(NamesTest, EveryValueHasOneName) {
  ExpectNamed<Stage>();
  ExpectNamed<PolicyMode>();
  ExpectNamed<Decision>();
  ExpectNamed<Way>();
  ExpectNamed<Failure>();
  ExpectNamed<Disposition>();
  ExpectNamed<ReasonCode>();
}

// In logs, metrics and HTTP answers: others read them.
TEST(NamesTest, NamesOfDecisionsAreFixed) {
  EXPECT_EQ(NameOf(Decision::kKeep), "keep");
  EXPECT_EQ(NameOf(Decision::kHandOver), "hand-over");
  EXPECT_EQ(NameOf(Decision::kVerify), "verify");
  EXPECT_EQ(NameOf(Decision::kStreamUpstream), "stream-upstream");
  EXPECT_EQ(NameOf(Decision::kDefer), "defer");
}

}  // namespace
}  // namespace updraft
