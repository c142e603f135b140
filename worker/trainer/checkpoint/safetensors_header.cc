// Parsing and building of safetensors headers.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "worker/trainer/checkpoint/safetensors.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

struct TypeRow {
  DataType type;
  const char* name;
  int64_t bytes;
};

constexpr TypeRow kTypes[] = {
    {DataType::kF64, "F64", 8},        {DataType::kF32, "F32", 4},
    {DataType::kF16, "F16", 2},        {DataType::kBF16, "BF16", 2},
    {DataType::kF8E4M3, "F8_E4M3", 1}, {DataType::kF8E5M2, "F8_E5M2", 1},
    {DataType::kI64, "I64", 8},        {DataType::kI32, "I32", 4},
    {DataType::kI16, "I16", 2},        {DataType::kI8, "I8", 1},
    {DataType::kU64, "U64", 8},        {DataType::kU32, "U32", 4},
    {DataType::kU16, "U16", 2},        {DataType::kU8, "U8", 1},
    {DataType::kBool, "BOOL", 1},
};

const TypeRow& Row(DataType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row;
  }
  return kTypes[0];
}

// Follows the parser's events; the header's grammar is so small that anything outside it is an
// error, and unlike a parsed document the events show a key that comes twice.
class HeaderSax : public nlohmann::json_sax<json> {
 public:
  explicit HeaderSax(SafetensorsHeader* header) : header_(header) {}

  const std::string& error() const { return error_; }

  bool null() override { return Fail("null is not expected"); }
  bool boolean(bool) override { return Fail("a boolean is not expected"); }
  bool number_integer(number_integer_t) override {
    return Fail("a negative number is not expected");
  }
  bool number_float(number_float_t, const string_t&) override {
    return Fail("a number that is no 64-bit integer is not expected");
  }
  bool binary(binary_t&) override { return Fail("binary is not expected"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (where_ != Where::kShape && where_ != Where::kOffsets)
      return Fail("a number is not expected");
    if (value > static_cast<number_unsigned_t>(INT64_MAX)) return Fail("a number is too large");
    if (where_ == Where::kShape) {
      if (tensor_.shape.size() >= 16) return Fail("shape has more than 16 dimensions");
      tensor_.shape.push_back(static_cast<int64_t>(value));
    } else {
      if (num_offsets_ >= 2) return Fail("data_offsets has more than two entries");
      (num_offsets_++ == 0 ? tensor_.begin : tensor_.end) = static_cast<int64_t>(value);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (where_ == Where::kMetadata) {
      header_->metadata.emplace_back(key_, value);
      return true;
    }
    if (where_ != Where::kTensor || key_ != "dtype") return Fail("a string is not expected");
    for (const TypeRow& row : kTypes) {
      if (value == row.name) {
        tensor_.dtype = row.type;
        return true;
      }
    }
    return Fail(absl::StrFormat("unknown dtype \"%s\"", value.substr(0, 32)));
  }

  bool start_object(std::size_t) override {
    switch (where_) {
      case Where::kStart:
        where_ = Where::kTop;
        return true;
      case Where::kTop:
        tensor_ = SafetensorsTensor();
        tensor_.name = key_;
        num_offsets_ = 0;
        fields_.clear();
        where_ = key_ == "__metadata__" ? Where::kMetadata : Where::kTensor;
        return true;
      default:
        return Fail("an object is not expected");
    }
  }

  bool key(string_t& value) override {
    key_ = value;
    if (where_ == Where::kTop) {
      if (!names_.insert(value).second) {
        return Fail(absl::StrFormat("\"%s\" comes twice", value.substr(0, 256)));
      }
      tensor_.name = value;
      return true;
    }
    if (!fields_.insert(value).second) {
      return Fail(absl::StrFormat("key \"%s\" comes twice", value.substr(0, 64)));
    }
    if (where_ == Where::kTensor && value != "dtype" && value != "shape" &&
        value != "data_offsets") {
      return Fail(absl::StrFormat("unknown key \"%s\"", value.substr(0, 64)));
    }
    return true;
  }

  bool end_object() override {
    if (where_ == Where::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!fields_.contains(field)) return Fail(absl::StrFormat("%s is missing", field));
      }
      if (num_offsets_ != 2) return Fail("data_offsets needs two entries");
      header_->tensors.push_back(tensor_);
    }
    where_ = where_ == Where::kTop ? Where::kEnd : Where::kTop;
    tensor_.name.clear();
    return true;
  }

  bool start_array(std::size_t) override {
    if (where_ == Where::kTensor && key_ == "shape") {
      where_ = Where::kShape;
    } else if (where_ == Where::kTensor && key_ == "data_offsets") {
      where_ = Where::kOffsets;
    } else {
      return Fail("an array is not expected");
    }
    return true;
  }
  bool end_array() override {
    where_ = Where::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    return Fail(absl::StrFormat("not valid JSON at byte %d", position));
  }

 private:
  enum class Where { kStart, kTop, kTensor, kMetadata, kShape, kOffsets, kEnd };

  bool Fail(const std::string& why) {
    error_ = tensor_.name.empty() || tensor_.name == "__metadata__"
                 ? why
                 : absl::StrFormat("tensor \"%s\": %s", tensor_.name.substr(0, 256), why);
    return false;
  }

  SafetensorsHeader* header_;
  SafetensorsTensor tensor_;
  std::string key_;
  absl::flat_hash_set<std::string> names_;
  absl::flat_hash_set<std::string> fields_;
  int num_offsets_ = 0;
  Where where_ = Where::kStart;
  std::string error_;
};

// Bytes of shape x dtype; nothing on overflow.
std::optional<int64_t> ShapeBytes(const SafetensorsTensor& tensor) {
  int64_t bytes = DataTypeBytes(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

}  // namespace

int64_t DataTypeBytes(DataType type) { return Row(type).bytes; }
const char* DataTypeName(DataType type) { return Row(type).name; }

const SafetensorsTensor* SafetensorsHeader::Find(absl::string_view name) const {
  for (const SafetensorsTensor& tensor : tensors) {
    if (name == tensor.name) return &tensor;
  }
  return nullptr;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text, int64_t data_bytes,
                                                         const std::string& path) {
  const auto fail = [&path](const std::string& why) {
    return absl::DataLossError(absl::StrFormat("%s: %s", path, why));
  };
  if (text.empty() || text[0] != '{') return fail("header does not start with '{'");
  SafetensorsHeader header;
  HeaderSax sax(&header);
  if (!json::sax_parse(text.data(), text.data() + text.size(), &sax)) {
    return fail(absl::StrFormat("header: %s", sax.error()));
  }
  for (const SafetensorsTensor& tensor : header.tensors) {
    if (tensor.begin > tensor.end || tensor.end > data_bytes) {
      return fail(
          absl::StrFormat("tensor \"%s\": data_offsets [%d, %d] are out of range: the file has %d "
                          "bytes of data",
                          tensor.name, tensor.begin, tensor.end, data_bytes));
    }
    const std::optional<int64_t> bytes = ShapeBytes(tensor);
    if (!bytes || *bytes != tensor.end - tensor.begin) {
      return fail(
          absl::StrFormat("tensor \"%s\": shape [%s] of %s does not have the %d bytes of its "
                          "data_offsets",
                          tensor.name, absl::StrJoin(tensor.shape, ", "),
                          DataTypeName(tensor.dtype), tensor.end - tensor.begin));
    }
  }
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  int64_t next = 0;
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const SafetensorsTensor& tensor = header.tensors[i];
    if (tensor.begin < next) {
      return fail(absl::StrFormat("tensor \"%s\" overlaps tensor \"%s\"", tensor.name,
                                  header.tensors[i - 1].name));
    }
    if (tensor.begin > next) {
      return fail(absl::StrFormat("tensor \"%s\" leaves a hole of %d bytes before it", tensor.name,
                                  tensor.begin - next));
    }
    next = tensor.end;
  }
  if (next != data_bytes) {
    return fail(absl::StrFormat("%d bytes after the last tensor", data_bytes - next));
  }
  const uint64_t length = text.size();
  header.raw.resize(sizeof(length));
  std::memcpy(header.raw.data(), &length, sizeof(length));
  header.raw.append(text.data(), text.size());
  return header;
}

absl::StatusOr<SafetensorsHeader> MakeSafetensorsHeader(std::vector<SafetensorsTensor> tensors) {
  // Put together by hand: an ordered JSON object looks keys up one by one, and there may be
  // 100,000.
  std::string text = R"({"__metadata__":{"format":"pt"})";
  absl::flat_hash_set<std::string> names = {"__metadata__"};
  int64_t next = 0;
  for (SafetensorsTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrFormat("tensor \"%s\" comes twice", tensor.name));
    }
    const std::optional<int64_t> bytes = ShapeBytes(tensor);
    if (!bytes || __builtin_add_overflow(next, *bytes, &tensor.end)) {
      return absl::InvalidArgumentError(absl::StrFormat("tensor \"%s\" is too large", tensor.name));
    }
    tensor.begin = next;
    next = tensor.end;
    absl::StrAppend(&text, ",", json(tensor.name).dump(), ":{\"dtype\":\"",
                    DataTypeName(tensor.dtype), "\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                    "],\"data_offsets\":[", tensor.begin, ",", tensor.end, "]}");
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  SafetensorsHeader header;
  const uint64_t length = text.size();
  header.raw.resize(sizeof(length));
  std::memcpy(header.raw.data(), &length, sizeof(length));
  header.raw += text;
  header.tensors = std::move(tensors);
  header.metadata = {{"format", "pt"}};
  return header;
}

}  // namespace switchyard::trainer
