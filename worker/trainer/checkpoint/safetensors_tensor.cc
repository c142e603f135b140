#include "worker/trainer/checkpoint/safetensors_tensor.h"

#include <ATen/ops/empty.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard::trainer {
namespace {

constexpr std::pair<DataType, at::ScalarType> kPairs[] = {
    {DataType::kF64, at::kDouble},
    {DataType::kF32, at::kFloat},
    {DataType::kF16, at::kHalf},
    {DataType::kBF16, at::kBFloat16},
    {DataType::kF8E4M3, at::kFloat8_e4m3fn},
    {DataType::kF8E5M2, at::kFloat8_e5m2},
    {DataType::kI64, at::kLong},
    {DataType::kI32, at::kInt},
    {DataType::kI16, at::kShort},
    {DataType::kI8, at::kChar},
    {DataType::kU64, at::kUInt64},
    {DataType::kU32, at::kUInt32},
    {DataType::kU16, at::kUInt16},
    {DataType::kU8, at::kByte},
    {DataType::kBool, at::kBool},
};

}  // namespace

absl::StatusOr<DataType> DataTypeOf(at::ScalarType type) {
  for (const auto& [mine, theirs] : kPairs) {
    if (theirs == type) return mine;
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("dtype %s cannot be kept in safetensors", c10::toString(type)));
}

at::ScalarType ScalarTypeOf(DataType type) {
  for (const auto& [mine, theirs] : kPairs) {
    if (mine == type) return theirs;
  }
  return at::ScalarType::Undefined;
}

absl::StatusOr<at::Tensor> ReadTensor(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsTensor* info = file.header().Find(name);
  if (info == nullptr) {
    return absl::NotFoundError(absl::StrFormat("%s has no tensor \"%s\"", file.path(), name));
  }
  at::Tensor tensor = at::empty(info->shape, at::TensorOptions().dtype(ScalarTypeOf(info->dtype)));
  SWITCHYARD_RETURN_IF_ERROR(file.Read(*info, 0, info->numel(), tensor.data_ptr()));
  return tensor;
}

absl::StatusOr<NamedTensors> ReadTensors(const std::string& path) {
  SWITCHYARD_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  NamedTensors tensors;
  for (const SafetensorsTensor& info : file.header().tensors) {
    SWITCHYARD_ASSIGN_OR_RETURN(at::Tensor tensor, ReadTensor(file, info.name));
    tensors.emplace_back(info.name, std::move(tensor));
  }
  return tensors;
}

absl::Status WriteTensors(const std::string& path, const NamedTensors& tensors) {
  std::vector<SafetensorsTensor> infos;
  for (const auto& [name, tensor] : tensors) {
    SafetensorsTensor info;
    info.name = name;
    info.shape = tensor.sizes().vec();
    SWITCHYARD_ASSIGN_OR_RETURN(info.dtype, DataTypeOf(tensor.scalar_type()));
    infos.push_back(std::move(info));
  }
  SWITCHYARD_ASSIGN_OR_RETURN(const SafetensorsHeader header,
                              MakeSafetensorsHeader(std::move(infos)));
  SWITCHYARD_RETURN_IF_ERROR(CheckFreeSpace(path, header.file_bytes()));
  const std::string partial = absl::StrFormat("%s.partial-%d", path, ::getpid());
  SWITCHYARD_RETURN_IF_ERROR(WriteFileDurably(partial, header.raw));
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd fd, OpenToWriteParts(partial));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor bytes = tensors[i].second.detach().cpu().contiguous();
    SWITCHYARD_RETURN_IF_ERROR(WriteAt(fd.get(), partial, bytes.data_ptr(),
                                       static_cast<int64_t>(bytes.nbytes()),
                                       header.DataOffset(header.tensors[i])));
  }
  SWITCHYARD_RETURN_IF_ERROR(SyncFile(fd.get(), partial));
  if (std::rename(partial.c_str(), path.c_str()) != 0) return FileError(errno, "rename", path);
  return absl::OkStatus();
}

}  // namespace switchyard::trainer
