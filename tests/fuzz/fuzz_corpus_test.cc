// Every target over its committed corpus, and over that corpus cut short and with bits turned.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/fuzz/fuzz_targets.h"

namespace switchyard::fuzz {
namespace {

class Corpus : public testing::TestWithParam<Target> {};

TEST_P(Corpus, IsReadWithoutHarm) {
  const char* source = std::getenv("SWITCHYARD_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  const std::string directory = std::string(source) + "/tests/fuzz/corpus/" + GetParam().name;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    SCOPED_TRACE(entry.path().string());
    GetParam().run(bytes);
    for (size_t length = 0; length < bytes.size(); length += 1 + bytes.size() / 16)
      GetParam().run(absl::string_view(bytes).substr(0, length));
    for (size_t i = 0; i < bytes.size(); i += 1 + bytes.size() / 32) {
      std::string turned = bytes;
      turned[i] = static_cast<char>(turned[i] ^ (1 << (i % 8)));
      GetParam().run(turned);
    }
    ++files;
  }
  EXPECT_GE(files, 3);
}

INSTANTIATE_TEST_SUITE_P(All, Corpus, testing::ValuesIn(kTargets),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace switchyard::fuzz
