#include "common/routing/names.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace updraft {
namespace {

// Every value has a name of its own and comes back from it; `last` is the enum's last value, so that a value that was
// added without a name is missed here.
template <typename E>
void ExpectNamed(E last) {
  std::set<std::string_view> names;
  size_t n = 0;
  for (const E value : AllOf<E>()) {
    EXPECT_EQ(static_cast<size_t>(value), n++);
    EXPECT_FALSE(NameOf(value).empty());
    EXPECT_TRUE(names.insert(NameOf(value)).second) << NameOf(value) << " twice";
    EXPECT_EQ(FromName<E>(NameOf(value)), value);
  }
  EXPECT_EQ(n, static_cast<size_t>(last) + 1) << "after " << NameOf(last);
  EXPECT_EQ(NameOf(static_cast<E>(200)), "unknown");
  EXPECT_FALSE(FromName<E>("unknown").has_value());
  EXPECT_FALSE(FromName<E>("").has_value());
}

TEST(NamesTest, EveryValueHasOneName) {
  ExpectNamed(Stage::kAfter);
  ExpectNamed(PolicyMode::kUpstream);
  ExpectNamed(Decision::kDefer);
  ExpectNamed(Way::kDefer);
  ExpectNamed(Failure::kBroken);
  ExpectNamed(Disposition::kClarify);
  ExpectNamed(ReasonCode::kTooLate);
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
