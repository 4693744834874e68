#include <gtest/gtest.h>

#include <set>
#include <string_view>

#include "deploy/train/cockpit/intents.h"

namespace updraft::cockpit {
namespace {

TEST(IntentsTest, EveryIntentMovesASignalOfTheCatalogue) {
  std::set<std::string_view> ids;
  for (const Intent& intent : Intents()) {
    EXPECT_EQ(SignalOf(intent).path, intent.path) << intent.id;
    EXPECT_TRUE(ids.insert(intent.id).second) << intent.id << " is there twice";
  }
}

}  // namespace
}  // namespace updraft::cockpit
