#include "common/text/utf8.h"

#include <gtest/gtest.h>

namespace updraft::text {
namespace {

TEST(FirstIllFormed, FindsTheFirstByteThatIsNoPartOfACharacter) {
  EXPECT_EQ(FirstIllFormed(""), std::string_view::npos);
  EXPECT_EQ(FirstIllFormed("plain, \u00e9, \u6e29, \U0001F697"), std::string_view::npos);
  EXPECT_EQ(FirstIllFormed("\xff"), 0u);
  EXPECT_EQ(FirstIllFormed("ab\x80"), 2u);
  EXPECT_EQ(FirstIllFormed("\u6e29\xe6\xb8"), 3u);    // cut off
  EXPECT_EQ(FirstIllFormed("x\xed\xa0\x80 y"), 1u);   // a surrogate
  EXPECT_EQ(FirstIllFormed("x\xc0\xaf"), 1u);         // overlong
  EXPECT_EQ(FirstIllFormed("\xf4\x90\x80\x80"), 0u);  // beyond U+10FFFF
}

}  // namespace
}  // namespace updraft::text
