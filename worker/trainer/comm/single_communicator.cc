#include "worker/trainer/comm/single_communicator.h"

namespace switchyard::trainer {
namespace {

class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(at::Device device) : device_(device) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  at::Device device() const override { return device_; }
  void AllReduce(at::Tensor) override {}
  void AllReduceMax(at::Tensor) override {}
  void ReduceScatter(const at::Tensor& input, at::Tensor output) override { Copy(input, output); }
  void AllGather(const at::Tensor& input, at::Tensor output) override { Copy(input, output); }
  void Broadcast(at::Tensor, int) override {}
  void Barrier() override {}

 private:
  static void Copy(const at::Tensor& input, at::Tensor& output) {
    if (input.data_ptr() != output.data_ptr()) output.copy_(input.view_as(output));
  }

  at::Device device_;
};

}  // namespace

std::unique_ptr<Communicator> MakeSingleCommunicator(at::Device device) {
  return std::make_unique<SingleCommunicator>(device);
}

MeshCommunicators MakeSingleMeshCommunicators(at::Device device) {
  return {MakeSingleCommunicator(device), MakeSingleCommunicator(device),
          MakeSingleCommunicator(device)};
}

}  // namespace switchyard::trainer
