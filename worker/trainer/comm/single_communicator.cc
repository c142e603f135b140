#include "worker/trainer/comm/single_communicator.h"

namespace switchyard::trainer {
namespace {

class SingleCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
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
};

}  // namespace

std::unique_ptr<Communicator> MakeSingleCommunicator() {
  return std::make_unique<SingleCommunicator>();
}

MeshCommunicators MakeSingleMeshCommunicators() {
  return {MakeSingleCommunicator(), MakeSingleCommunicator(), MakeSingleCommunicator()};
}

}  // namespace switchyard::trainer
