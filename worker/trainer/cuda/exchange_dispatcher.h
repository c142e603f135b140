// What the two dispatchers of an ep group on GPUs share: bookkeeping and the order of kernels
// (kernels/dispatch.h). They differ in who carries rows between ranks, so their bytes are the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "common/model/dispatch_window.h"
#include "kernels/dispatch.h"
#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

// Thread blocks (512 threads each) of the exchanges.
struct ExchangeBlocks {
  int rows_send = 16;  // that push rows: 12 nearly fill the link
  int back_send = 48;  // that sum and push rows
  int max_blocks = 0;  // of one exchange in all; 0: as many as multiprocessors. Fewer leave
                       // multiprocessors to GEMMs that run beside it
};

// All tensors are on one GPU, activations bfloat16, choices int32. Calls are enqueued on the
// current stream; nothing is allocated on the device and nothing waits for it.
class ExchangeDispatcher : public TokenDispatcher {
 public:
  Routing Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                   Arena& saved, at::Tensor rows_RD) override;
  void Redispatch(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD) override;
  void Combine(const at::Tensor& rows_RD, const Routing& routing, const at::Tensor& residual_TD,
               at::Tensor y_TD) override;
  void DispatchGradient(const at::Tensor& grad_y_TD, const Routing& routing,
                        at::Tensor grad_rows_RD) override;
  void CombineGradient(const at::Tensor& grad_rows_RD, const at::Tensor& grad_weight_R,
                       const Routing& routing, at::Tensor grad_x_TD,
                       at::Tensor grad_weight_TK) override;
  int64_t MaxRows(int64_t num_tokens) const override;

 protected:
  // `shape`: the largest micro-batch. Throws c10::Error for shapes that the kernels do not take.
  ExchangeDispatcher(int rank, int64_t num_experts, const DispatchWindowShape& shape,
                     const ExchangeBlocks& blocks);

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(shape_.expert_parallel); }
  const DispatchWindowShape& shape() const { return shape_; }
  // Blocks that send and receive when both are to run in one launch.
  template <typename Params>
  void SetBlocks(Params& params, int send) const;

  // Enqueue the exchange of rows, and of choices before it when rows.build; or of the way back.
  virtual void MoveRows(kernels::ExchangeRowsParams& rows) = 0;
  virtual void MoveBack(kernels::ExchangeBackParams& back) = 0;
  // Throws PeerLost.
  virtual void Check() = 0;

  ExchangeBlocks blocks_;
  // With what every call shares: control, pointers of peers and of the receive side. Filled by the
  // derived class.
  kernels::DispatchPlanParams plan_ = {};
  kernels::ExchangeRowsParams rows_ = {};
  kernels::ExchangeBackParams back_ = {};
  kernels::ExchangeControl local_ = {};  // of Redispatch, which involves no peer

 private:
  void CheckTokens(const at::Tensor& x_TD) const;
  void SendRows(const at::Tensor& x_TD, const Routing& routing, bool build, at::Tensor rows_RD);
  void SendBack(const at::Tensor& rows_RD, const at::Tensor* grad_weight_R, const Routing& routing,
                const at::Tensor* residual_TD, at::Tensor y_TD, at::Tensor* grad_weight_TK);

  int rank_;
  int64_t num_experts_;
  DispatchWindowShape shape_;
  int multiprocessors_ = 0;
};

// Throws c10::Error when the launch failed.
void CheckLaunch(cudaError_t error, const char* kernel);

template <typename Params>
void ExchangeDispatcher::SetBlocks(Params& params, int send) const {
  const int all = blocks_.max_blocks > 0 ? blocks_.max_blocks : multiprocessors_;
  params.send_blocks = all > 2 * send ? send : (all > 1 ? all / 2 : 1);
  params.receive_blocks = all - params.send_blocks > 0 ? all - params.send_blocks : 1;
}

}  // namespace switchyard::trainer
