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

TEST(Utf8Test, APrefixCutsNoSequence) {
  const std::string text = "a\xC3\xA9\xF0\x9F\x9A\x82z";
  EXPECT_EQ(Utf8Prefix(text, 8), text);
  EXPECT_EQ(Utf8Prefix(text, 7), "a\xC3\xA9\xF0\x9F\x9A\x82");
  for (size_t bytes : {3, 4, 5, 6}) EXPECT_EQ(Utf8Prefix(text, bytes), "a\xC3\xA9") << bytes;
  EXPECT_EQ(Utf8Prefix(text, 2), "a");
  EXPECT_EQ(Utf8Prefix(text, 0), "");
}

}  // namespace
}  // namespace switchyard
