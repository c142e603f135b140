// A file mapped for reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace switchyard {

class MappedFile {
 public:
  // Maps the whole file. The file must not shrink while it is mapped.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile();

  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  MappedFile(const std::byte* data, int64_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace switchyard
