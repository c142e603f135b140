#include "worker/trainer/checkpoint/safetensors.h"

#include <cstring>

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard::trainer {

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SWITCHYARD_ASSIGN_OR_RETURN(UniqueFd fd, OpenToRead(path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t size, FileSize(fd.get(), path));
  uint64_t length = 0;
  if (size < static_cast<int64_t>(sizeof(length))) {
    return absl::DataLossError(
        absl::StrFormat("%s: %d bytes are too few for a safetensors file", path, size));
  }
  SWITCHYARD_RETURN_IF_ERROR(ReadAt(fd.get(), path, &length, sizeof(length), 0));
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeader)) {
    return absl::DataLossError(
        absl::StrFormat("%s: header of %d bytes is above the limit of %d: not a safetensors file?",
                        path, length, kMaxSafetensorsHeader));
  }
  const int64_t data_start = static_cast<int64_t>(sizeof(length) + length);
  if (data_start > size) {
    return absl::DataLossError(absl::StrFormat(
        "%s: truncated: the header needs %d bytes, the file has %d", path, data_start, size));
  }
  std::string json(length, '\0');
  SWITCHYARD_RETURN_IF_ERROR(
      ReadAt(fd.get(), path, json.data(), static_cast<int64_t>(length), sizeof(length)));
  SWITCHYARD_ASSIGN_OR_RETURN(SafetensorsHeader header,
                              ParseSafetensorsHeader(json, size - data_start, path));
  return SafetensorsFile(path, std::move(fd), std::move(header));
}

absl::Status SafetensorsFile::Read(const SafetensorsTensor& tensor, int64_t first, int64_t count,
                                   void* out) const {
  SWITCHYARD_CHECK(first >= 0 && count >= 0 && first + count <= tensor.numel(),
                   "range outside of the tensor");
  const int64_t width = DataTypeBytes(tensor.dtype);
  return ReadAt(fd_.get(), path_, out, count * width, header_.DataOffset(tensor) + first * width);
}

}  // namespace switchyard::trainer
