#include "common/utf8.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(Utf8Test, KeepsWhatIsUtf8) {
  const std::string text = "a\n\xC3\xA9\xE2\x96\x88\xF0\x9F\x9A\x82" + std::string(1, '\0');
  EXPECT_EQ(ToUtf8(text), text);
}

TEST(Utf8Test, ReplacesOtherBytesOneByOne) {
  EXPECT_EQ(ToUtf8("a\xFFz"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(ToUtf8("\xE2\x96"), "\xEF\xBF\xBD\xEF\xBF\xBD") << "cut short";
  EXPECT_EQ(ToUtf8("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD") << "overlong";
  EXPECT_EQ(ToUtf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD") << "a surrogate";
}

}  // namespace
}  // namespace switchyard
