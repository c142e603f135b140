#include "tests/trainer/train/stand_in_gpu.h"

#include <exception>
#include <memory>
#include <stdexcept>

#include "worker/trainer/comm/single_communicator.h"
#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/train/device_backend.h"

namespace switchyard::trainer {
namespace {

using at::Tensor;

[[noreturn]] void Refuse() { throw std::logic_error("this GPU computes nothing"); }

class Ops final : public ops::DeviceOps {
 public:
  void Prepare(const ModelShape&, int64_t, Arena*) override {}
  void ReserveAttentionScratch(int64_t) override {}
  Tensor MakeSegments(const std::vector<ops::UpdateSegment>&) override { return {}; }

  Batch Upload(const Batch&) override { Refuse(); }
  void MarkBeside() override { Refuse(); }
  void Beside(const std::function<void()>&) override { Refuse(); }
  void JoinBeside() override { Refuse(); }
  void RmsNorm(const Tensor&, const Tensor&, double, const Tensor&) override { Refuse(); }
  void RmsNormBackward(const Tensor&, const Tensor&, const Tensor&, double, const Tensor&,
                       const ops::WeightGradient&) override {
    Refuse();
  }
  void QkNormRopeForward(const ops::QkNormRope&, const Tensor&, const Tensor&) override {
    Refuse();
  }
  void QkNormRopeBackward(const ops::QkNormRope&, const Tensor&, const ops::QkvGradient&,
                          const Tensor&, const ops::WeightGradient&,
                          const ops::WeightGradient&) override {
    Refuse();
  }
  void CausalAttention(const ops::AttentionShape&, const Tensor&, const Tensor&, const Tensor&,
                       const Tensor&, const Tensor&) override {
    Refuse();
  }
  void CausalAttentionBackward(const ops::AttentionShape&, const Tensor&, const Tensor&,
                               const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                               const Tensor&, const Tensor&, const Tensor&) override {
    Refuse();
  }
  void RouteTokens(const ops::RouterRule&, const Tensor&, const Tensor&, const Tensor&,
                   const Tensor&, const ops::RouterStatistics&) override {
    Refuse();
  }
  void RouteTokensBackward(const ops::RouterRule&, const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&, const Tensor&, const Tensor&) override {
    Refuse();
  }
  void GroupedGemm(const Tensor&, const Tensor&, const Tensor&, const Tensor&) override {
    Refuse();
  }
  void GroupedGemmSwiGlu(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                         const Tensor&) override {
    Refuse();
  }
  void GroupedGemmTransposed(const Tensor&, const Tensor&, const Tensor&, const Tensor&) override {
    Refuse();
  }
  void GroupedWeightGradient(const Tensor&, const Tensor&, const Tensor&,
                             const ops::WeightGradient&) override {
    Refuse();
  }
  void SwiGlu(const Tensor&, const Tensor&, const Tensor&, const Tensor&) override { Refuse(); }
  void SwiGluBackward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const Tensor&) override {
    Refuse();
  }
  void CrossEntropyWithGradient(const Tensor&, const Tensor&, double, const Tensor&) override {
    Refuse();
  }
  void SortTokens(const Tensor&, int64_t, const ops::TokensById&) override { Refuse(); }
  void AddEmbeddingGradient(const ops::EmbeddingRows&, const ops::TokensById&,
                            const ops::TablePart&) override {
    Refuse();
  }
  void SumOfSquares(const Tensor&, const Tensor&) override { Refuse(); }
  Tensor MakeUpdateScalars(int64_t) override { Refuse(); }
  int64_t ReadUpdates(const Tensor&) override { Refuse(); }
  void PrepareUpdate(const Tensor&, const Tensor&, double, double, double, const Tensor&) override {
    Refuse();
  }
  void UpdateShard(const ops::ShardUpdate&) override { Refuse(); }
};

class Groups final : public DeviceGroups {
 public:
  Groups() { ++TheStandInGpu().joined; }
  ~Groups() override {
    ++TheStandInGpu().left;
    if (std::uncaught_exceptions() > 0) ++TheStandInGpu().left_failing;
  }
  MeshCommunicators& communicators() override { return communicators_; }
  std::unique_ptr<TokenDispatcher> MakeDispatcher(int64_t, const DispatchWindowShape&) override {
    Refuse();
  }

 private:
  MeshCommunicators communicators_ = MakeSingleMeshCommunicators();
};

class Backend final : public DeviceBackend {
 public:
  at::Device Use(const DeviceUse&) override {
    ops::InstallDeviceOps(&ops_);
    return at::kMeta;
  }
  std::string NewRendezvousId() override { return "id"; }
  std::unique_ptr<DeviceGroups> Join(const Mesh&, const std::string&, int,
                                     const DispatchWindowShape&) override {
    return std::make_unique<Groups>();
  }
  std::string Product() override { return "stand-in"; }
  void Synchronize() override {}
  DeviceMemory Memory() override { return {}; }
  void ForbidWaiting(bool) override {}
  void StartTrace() override { Refuse(); }
  std::string StopTrace(const std::string&) override { Refuse(); }

 private:
  Ops ops_;
};

}  // namespace

StandInGpu& TheStandInGpu() {
  static StandInGpu gpu;
  return gpu;
}

DeviceBackend* GpuBackend() {
  static Backend backend;
  return &backend;
}

void BecomeProgramFor(const std::string&) {}

}  // namespace switchyard::trainer
