#include "worker/trainer/cuda/nccl_communicator.h"

#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include <thread>

#include "absl/strings/str_format.h"

namespace switchyard::trainer {
namespace {

ncclDataType_t Type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ncclFloat32;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kDouble:
      return ncclFloat64;
    case at::kLong:
      return ncclInt64;
    case at::kInt:
      return ncclInt32;
    case at::kShort:  // moved only
      return ncclFloat16;
    default:
      TORCH_CHECK(false, "no collective for ", tensor.scalar_type());
  }
}

void CheckTensor(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_cuda() && tensor.is_contiguous(),
              "collectives take contiguous CUDA tensors, not ", tensor.device(), " ",
              tensor.sizes());
}

void CheckSummed(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() != at::kShort, "int16 is not summed");
}

std::string Text(const char* name, const at::Tensor& tensor) {
  return absl::StrFormat("%s of %d %s", name, tensor.numel(), c10::toString(tensor.scalar_type()));
}

}  // namespace

void NcclCommunicator::AllReduce(at::Tensor tensor) {
  CheckTensor(tensor);
  CheckSummed(tensor);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  session_->Enqueue(comm_, Text("all_reduce", tensor), stream, [&] {
    void* data = tensor.data_ptr();
    return ncclAllReduce(data, data, tensor.numel(), Type(tensor), ncclSum, comm_, stream);
  });
}

void NcclCommunicator::AllReduceMax(at::Tensor tensor) {
  CheckTensor(tensor);
  CheckSummed(tensor);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  session_->Enqueue(comm_, Text("all_reduce_max", tensor), stream, [&] {
    void* data = tensor.data_ptr();
    return ncclAllReduce(data, data, tensor.numel(), Type(tensor), ncclMax, comm_, stream);
  });
}

void NcclCommunicator::ReduceScatter(const at::Tensor& input, at::Tensor output) {
  CheckTensor(input);
  CheckTensor(output);
  CheckSummed(input);
  TORCH_CHECK(input.numel() == size_ * output.numel() && input.dtype() == output.dtype(),
              "reduce_scatter of ", input.numel(), " elements into ", size_, " x ", output.numel());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  session_->Enqueue(comm_, Text("reduce_scatter", input), stream, [&] {
    return ncclReduceScatter(input.const_data_ptr(), output.data_ptr(), output.numel(), Type(input),
                             ncclSum, comm_, stream);
  });
}

void NcclCommunicator::AllGather(const at::Tensor& input, at::Tensor output) {
  CheckTensor(input);
  CheckTensor(output);
  TORCH_CHECK(output.numel() == size_ * input.numel() && input.dtype() == output.dtype(),
              "all_gather of ", size_, " x ", input.numel(), " elements into ", output.numel());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  session_->Enqueue(comm_, Text("all_gather", output), stream, [&] {
    return ncclAllGather(input.const_data_ptr(), output.data_ptr(), input.numel(), Type(input),
                         comm_, stream);
  });
}

void NcclCommunicator::Broadcast(at::Tensor tensor, int root) {
  CheckTensor(tensor);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  session_->Enqueue(comm_, Text("broadcast", tensor), stream, [&] {
    void* data = tensor.data_ptr();
    return ncclBroadcast(data, data, tensor.nbytes(), ncclUint8, root, comm_, stream);
  });
}

void NcclCommunicator::Barrier() {
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(session_->options().device));
  if (!barrier_.defined()) barrier_ = at::zeros({1}, at::TensorOptions(at::kLong).device(device));
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  session_->Enqueue(comm_, "barrier", stream, [&] {
    void* data = barrier_.data_ptr();
    return ncclAllReduce(data, data, 1, ncclInt64, ncclSum, comm_, stream);
  });
  while (!stream.query()) {
    session_->Check();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  session_->Check();
}

void NcclCommunicator::AllToAll(const std::vector<Parcel>& parcels) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  int64_t bytes = 0;
  for (const Parcel& parcel : parcels) bytes += parcel.bytes;
  session_->Enqueue(
      comm_, absl::StrFormat("all_to_all of %d bytes a peer", bytes), stream,
      [&]() -> ncclResult_t {
        ncclResult_t result = ncclGroupStart();
        for (const Parcel& parcel : parcels) {
          for (int i = 1; i < size_ && result == ncclSuccess; ++i) {
            const int to = (rank_ + i) % size_, from = (rank_ + size_ - i) % size_;
            result = ncclSend(parcel.send[to], parcel.bytes, ncclUint8, to, comm_, stream);
            if (result != ncclSuccess) break;
            result = ncclRecv(parcel.receive[from], parcel.bytes, ncclUint8, from, comm_, stream);
          }
        }
        const ncclResult_t end = ncclGroupEnd();
        return result != ncclSuccess ? result : end;
      });
}

}  // namespace switchyard::trainer
