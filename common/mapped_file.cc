#include "common/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>

#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard {

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd fd, OpenToRead(path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t size, FileSize(fd.get(), path));
  if (size == 0) return MappedFile(nullptr, 0);
  void* data = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return FileError(errno, "map", path);
  return MappedFile(static_cast<const std::byte*>(data), size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

}  // namespace switchyard
