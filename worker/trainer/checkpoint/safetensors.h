// The safetensors container: its header, read and written; no torch.
//
// A file is a u64 little-endian header length, that many bytes of JSON, and the tensors' bytes back
// to back. Whatever the bytes of a file are, parsing ends in a header that is consistent with the
// file's size or in an error that names file and tensor. Data is read by pread, not mapped: a
// failing disk is then an error and not SIGBUS, and the pages do not count as this process's
// memory. Several processes can write one file: all compute the same header, one writes it, each
// writes its pieces at DataOffset().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/unique_fd.h"

namespace switchyard::trainer {

enum class DataType {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool
};

int64_t DataTypeBytes(DataType type);
// "F32", "BF16", ... as in the file.
const char* DataTypeName(DataType type);

struct SafetensorsTensor {
  std::string name;
  DataType dtype = DataType::kF32;
  std::vector<int64_t> shape;  // empty for a scalar
  int64_t begin = 0;           // bytes from the start of the data
  int64_t end = 0;

  int64_t numel() const { return (end - begin) / DataTypeBytes(dtype); }
};

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;  // in the order of their bytes
  std::vector<std::pair<std::string, std::string>> metadata;
  // Length field and JSON exactly as in the file, so that a copy of the layout is a copy of the
  // header.
  std::string raw;

  // Bytes of all tensors.
  int64_t data_bytes() const { return tensors.empty() ? 0 : tensors.back().end; }
  int64_t file_bytes() const { return static_cast<int64_t>(raw.size()) + data_bytes(); }
  // Position of a tensor's first byte in the file.
  int64_t DataOffset(const SafetensorsTensor& tensor) const {
    return static_cast<int64_t>(raw.size()) + tensor.begin;
  }
  // nullptr when there is none. Linear.
  const SafetensorsTensor* Find(absl::string_view name) const;
};

// Largest header that is read; the format's own limit.
inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;

// Parses the JSON of a header (without the length field) of a file with `data_bytes` bytes after
// it. DataLoss names `path` and, where one is at fault, the tensor.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json, int64_t data_bytes,
                                                         const std::string& path);

// Lays tensors out back to back in the given order (begin and end are filled in) and builds the
// header, padded to 8 bytes, with metadata {"format": "pt"}, which Transformers requires.
// InvalidArgument on two equal names.
absl::StatusOr<SafetensorsHeader> MakeSafetensorsHeader(std::vector<SafetensorsTensor> tensors);

// An open file with a checked header.
class SafetensorsFile {
 public:
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  // Reads `count` elements of `tensor` from element `first` on into `out`. The range must lie in
  // the tensor.
  absl::Status Read(const SafetensorsTensor& tensor, int64_t first, int64_t count, void* out) const;

 private:
  SafetensorsFile(std::string path, UniqueFd fd, SafetensorsHeader header)
      : path_(std::move(path)), fd_(std::move(fd)), header_(std::move(header)) {}

  std::string path_;
  UniqueFd fd_;
  SafetensorsHeader header_;
};

}  // namespace switchyard::trainer
