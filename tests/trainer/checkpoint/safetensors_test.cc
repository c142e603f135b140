#include "worker/trainer/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "common/durable_file.h"

namespace switchyard::trainer {
namespace {

using ::testing::HasSubstr;

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":", offsets, "}");
}

// Message of parsing `json` before `data_bytes` bytes of data; "" when it is accepted.
std::string ParseError(const std::string& json, int64_t data_bytes) {
  const auto header = ParseSafetensorsHeader(json, data_bytes, "m.safetensors");
  return std::string(header.status().message());
}

class SafetensorsFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(::testing::TempDir(), "/safetensors_test.", ::getpid(), ".safetensors");
  }
  void TearDown() override { std::filesystem::remove(path_); }

  void WriteRaw(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  static std::string File(const std::string& json, const std::string& data) {
    uint64_t length = json.size();
    std::string bytes(sizeof(length), '\0');
    std::memcpy(bytes.data(), &length, sizeof(length));
    return bytes + json + data;
  }
  std::string OpenError() { return std::string(SafetensorsFile::Open(path_).status().message()); }

  std::string path_;
};

TEST(SafetensorsHeaderTest, KeepsNamesShapesTypesOffsetsAndMetadata) {
  const std::string json =
      absl::StrCat("{\"__metadata__\":{\"format\":\"pt\"},", Entry("b", "BF16", "[2,3]", "[4,16]"),
                   ",", Entry("a", "F32", "[]", "[0,4]"), "}  ");
  const auto header = ParseSafetensorsHeader(json, 16, "m");
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 2u);
  EXPECT_EQ(header->tensors[0].name, "a");
  EXPECT_EQ(header->tensors[0].numel(), 1);
  EXPECT_EQ(header->tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header->tensors[1].dtype, DataType::kBF16);
  EXPECT_EQ(header->DataOffset(header->tensors[1]), 8 + static_cast<int64_t>(json.size()) + 4);
  EXPECT_EQ(header->metadata[0].second, "pt");
  EXPECT_EQ(header->file_bytes(), 8 + static_cast<int64_t>(json.size()) + 16);
}

TEST(SafetensorsHeaderTest, NamesFileAndTensorInEveryRefusal) {
  const std::string a = Entry("a", "F32", "[2]", "[0,8]");
  EXPECT_EQ(ParseError(absl::StrCat("{", a, ",", Entry("b", "F32", "[1]", "[4,8]"), "}"), 8),
            "m.safetensors: tensor \"b\" overlaps tensor \"a\"");
  EXPECT_EQ(ParseError(absl::StrCat("{", a, ",", Entry("b", "F32", "[1]", "[12,16]"), "}"), 16),
            "m.safetensors: tensor \"b\" leaves a hole of 4 bytes before it");
  EXPECT_EQ(ParseError(absl::StrCat("{", a, "}"), 4),
            "m.safetensors: tensor \"a\": data_offsets [0, 8] are out of range: the file has 4 "
            "bytes of data");
  EXPECT_EQ(ParseError(absl::StrCat("{", Entry("a", "F32", "[1]", "[8,4]"), "}"), 8),
            "m.safetensors: tensor \"a\": data_offsets [8, 4] are out of range: the file has 8 "
            "bytes of data");
  EXPECT_EQ(ParseError(absl::StrCat("{", a, "}"), 9),
            "m.safetensors: 1 bytes after the last tensor");
  EXPECT_EQ(ParseError(absl::StrCat("{", Entry("a", "F32", "[3]", "[0,8]"), "}"), 8),
            "m.safetensors: tensor \"a\": shape [3] of F32 does not have the 8 bytes of its "
            "data_offsets");
  EXPECT_EQ(
      ParseError(absl::StrCat("{", Entry("a", "F32", "[4611686018427387904,4]", "[0,0]"), "}"), 0),
      "m.safetensors: tensor \"a\": shape [4611686018427387904, 4] of F32 does not have the 0 "
      "bytes of its "
      "data_offsets");
  EXPECT_EQ(ParseError(absl::StrCat("{", Entry("a", "F31", "[2]", "[0,8]"), "}"), 8),
            "m.safetensors: header: tensor \"a\": unknown dtype \"F31\"");
  EXPECT_EQ(ParseError(absl::StrCat("{", a, ",", a, "}"), 8),
            "m.safetensors: header: \"a\" comes twice");
  EXPECT_EQ(ParseError("{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 0),
            "m.safetensors: header: tensor \"a\": data_offsets is missing");
  EXPECT_EQ(ParseError(absl::StrCat("{", Entry("a", "F32", "[-1]", "[0,8]"), "}"), 8),
            "m.safetensors: header: tensor \"a\": a negative number is not expected");
  EXPECT_EQ(
      ParseError(absl::StrCat("{", Entry("a", "F32", "[1e3]", "[0,8]"), "}"), 8),
      "m.safetensors: header: tensor \"a\": a number that is no 64-bit integer is not expected");
  EXPECT_EQ(ParseError(absl::StrCat("{", Entry("a", "F32", "[2]", "[0,8,9]"), "}"), 8),
            "m.safetensors: header: tensor \"a\": data_offsets has more than two entries");
  EXPECT_EQ(ParseError("[]", 0), "m.safetensors: header does not start with '{'");
  EXPECT_THAT(ParseError("{\"a\":", 0),
              HasSubstr("m.safetensors: header: tensor \"a\": not valid JSON at byte"));
  EXPECT_THAT(ParseError("{\"__metadata__\":{\"a\":1}}", 0), HasSubstr("a number is not expected"));
  EXPECT_THAT(ParseError(std::string(100000, '['), 0), HasSubstr("does not start"));
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100000; ++i) deep += "[";
  EXPECT_THAT(ParseError(deep, 0), HasSubstr("an array is not expected"));
}

TEST(SafetensorsHeaderTest, SurvivesAnyDamageToTheHeader) {
  const std::string good =
      absl::StrCat("{\"__metadata__\":{\"format\":\"pt\"},", Entry("a", "F32", "[2,3]", "[0,24]"),
                   ",", Entry("b", "I64", "[1]", "[24,32]"), "}");
  ASSERT_EQ(ParseError(good, 32), "");
  std::mt19937 random(7);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = good;
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 8);
          break;
        default:
          text.insert(at, 1, "{}[]\",:0123456789"[random() % 17]);
          break;
      }
      if (text.empty()) text = "{";
    }
    const auto header = ParseSafetensorsHeader(text, 32, "m");
    if (!header.ok()) continue;
    ++accepted;
    int64_t next = 0;
    for (const SafetensorsTensor& tensor : header->tensors) {
      ASSERT_EQ(tensor.begin, next);
      ASSERT_LE(tensor.end, 32);
      next = tensor.end;
    }
    ASSERT_EQ(next, 32);
  }
  EXPECT_GT(accepted, 0);  // a changed letter of a name is no damage
}

TEST(SafetensorsHeaderTest, WritesWhatItReads) {
  const auto made = MakeSafetensorsHeader(
      {{"x", DataType::kBF16, {3, 5}, 0, 0}, {"y", DataType::kF32, {}, 0, 0}});
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->raw.size() % 8, 0u);
  const auto parsed = ParseSafetensorsHeader(absl::string_view(made->raw).substr(8), 34, "m");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->raw, made->raw);
  EXPECT_EQ(parsed->tensors[1].begin, 30);
  const auto twice =
      MakeSafetensorsHeader({{"x", DataType::kU8, {1}, 0, 0}, {"x", DataType::kU8, {1}, 0, 0}});
  EXPECT_EQ(twice.status().message(), "tensor \"x\" comes twice");
}

TEST_F(SafetensorsFileTest, ReadsARange) {
  const int32_t values[] = {1, 2, 3, 4};
  WriteRaw(File(
      absl::StrCat("{", Entry("pad", "U8", "[3]", "[0,3]"), ",", Entry("a", "I32", "[4]", "[3,19]"),
                   "}"),
      std::string("xyz") + std::string(reinterpret_cast<const char*>(values), sizeof(values))));
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  int32_t out[2] = {};
  ASSERT_TRUE(file->Read(*file->header().Find("a"), 1, 2, out).ok());
  EXPECT_EQ(out[0], 2);
  EXPECT_EQ(out[1], 3);
}

TEST_F(SafetensorsFileTest, RefusesFilesThatAreCutOrNoSafetensors) {
  const std::string whole =
      File(absl::StrCat("{", Entry("a", "F32", "[2]", "[0,8]"), "}"), "12345678");
  for (size_t size = 0; size < whole.size(); ++size) {
    WriteRaw(whole.substr(0, size));
    EXPECT_THAT(OpenError(), HasSubstr(path_)) << size;
  }
  WriteRaw(whole.substr(0, 20));
  EXPECT_THAT(OpenError(), HasSubstr("truncated: the header needs"));
  WriteRaw(whole.substr(0, whole.size() - 1));
  EXPECT_THAT(OpenError(),
              HasSubstr("data_offsets [0, 8] are out of range: the file has 7 bytes of data"));
  WriteRaw("\x80\x02}q pytorch pickle");
  EXPECT_THAT(OpenError(), HasSubstr("is above the limit of 100000000: not a safetensors file?"));
  std::filesystem::remove(path_);
  EXPECT_EQ(OpenError(), absl::StrCat("cannot open ", path_, ": No such file or directory"));
}

TEST(DurableFileTest, NamesNeededAndFreeBytesWhenTheDiskIsFull) {
  const auto full = OpenToWriteParts("/dev/full");
  ASSERT_TRUE(full.ok());
  const absl::Status status = WriteAt(full->get(), "/dev/full", "12345", 5, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("cannot write /dev/full: No space left on device (needed 5 bytes, "));
  const absl::Status space =
      CheckFreeSpace(absl::StrCat(::testing::TempDir(), "/not/there"), INT64_MAX);
  EXPECT_EQ(space.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(space.message()), HasSubstr("needed 9223372036854775807 bytes"));
}

}  // namespace
}  // namespace switchyard::trainer
