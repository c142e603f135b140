#include "worker/trainer/cuda/window_dispatcher.h"

#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include "common/model/cuda_dispatch_window.h"
#include "worker/trainer/cuda/exchange_errors.h"
#include "worker/trainer/cuda/exchange_memory.h"

namespace switchyard::trainer {
namespace {

using kernels::ExchangeControl;

static_assert(CudaDispatchWindowLayout::kRowTile == kernels::kRowTile &&
              CudaDispatchWindowLayout::kBackTile == kernels::kBackTile &&
              CudaDispatchWindowLayout::kBackColumns == kernels::kBackColumns);
static_assert(kernels::kExchangeTableInts * sizeof(int32_t) <=
              CudaDispatchWindowLayout::kTable - 128);

// Parts of the header of a region.
enum Header {
  kRowsState = 0,
  kBackState = 128,
  kLocalState = 256,
  kError = 384,
  kRowsTaken = 512,  // by each peer, 32 bytes apart: peers write them
  kBackTaken = 1024,
  kTakenStride = 32,
};
static_assert(kBackTaken + kTakenStride * kernels::kMaxExchangeRanks <=
              CudaDispatchWindowLayout::kHeader);

class CudaWindowDispatcher final : public ExchangeDispatcher {
 public:
  CudaWindowDispatcher(PeerWindow& window, int64_t num_experts, const DispatchWindowShape& shape,
                       const ExchangeBlocks& blocks)
      : ExchangeDispatcher(window.rank(), num_experts, shape, blocks),
        window_(window),
        layout_(shape),
        error_(window.session()),
        scratch_(kernels::DispatchPlanScratchBytes(shape.max_tokens,
                                                   static_cast<int32_t>(num_experts), size())) {
    TORCH_CHECK(window.size() == size() && window.bytes() >= layout_.bytes, "the window of ",
                window.size(), " x ", window.bytes(), " bytes is too small for ", size(), " x ",
                layout_.bytes);
    plan_.control = rows_.control = Control(kRowsState, kRowsTaken);
    back_.control = Control(kBackState, kBackTaken);
    local_ = Control(kLocalState, -1);
    plan_.scratch = static_cast<uint64_t*>(scratch_.get());
    for (int r = 0; r < size(); ++r) Point(r);
  }

 protected:
  void MoveRows(kernels::ExchangeRowsParams& rows) override {
    SetBlocks(rows, blocks_.rows_send);
    CheckLaunch(ExchangeRows(rows, c10::cuda::getCurrentCUDAStream()), "ExchangeRows");
  }
  void MoveBack(kernels::ExchangeBackParams& back) override {
    SetBlocks(back, blocks_.back_send);
    CheckLaunch(ExchangeBack(back, c10::cuda::getCurrentCUDAStream()), "ExchangeBack");
  }
  void Check() override { error_.Check(); }

 private:
  template <typename T>
  T* At(int owner, int64_t offset) const {
    return reinterpret_cast<T*>(window_.peer(owner) + offset);
  }

  // `taken` -1: without peers.
  ExchangeControl Control(int64_t state, int64_t taken) const {
    ExchangeControl control = {};
    control.state = At<uint32_t>(rank(), state);
    control.error = At<uint32_t>(rank(), kError);
    control.host_error = error_.device();
    control.limit_ns =
        static_cast<uint64_t>(window_.session()->options().time_limit.count()) * 1000000;
    control.rank = rank();
    control.size = size();
    for (int r = 0; r < size() && taken >= 0; ++r) {
      if (r == rank()) continue;
      control.taken_from[r] = At<const uint32_t>(rank(), taken + r * kTakenStride);
      control.taken_to[r] = At<uint32_t>(r, taken + rank() * kTakenStride);
    }
    return control;
  }

  // Where this rank writes at r, and where r writes here.
  void Point(int r) {
    const int64_t to = layout_.At(rank(), 0), from = layout_.At(r, 0);
    plan_.table_to[r] = At<int32_t>(r, to);
    plan_.choice_to[r] = At<int32_t>(r, to + layout_.choice);
    plan_.weight_to[r] = At<float>(r, to + layout_.weight);
    rows_.table_from[r] = At<const int32_t>(rank(), from);
    rows_.choice_from[r] = At<const int32_t>(rank(), from + layout_.choice);
    rows_.weight_from[r] = At<const float>(rank(), from + layout_.weight);
    if (r == rank()) return;
    plan_.ready_to[r] = At<uint32_t>(r, to + layout_.ready);
    rows_.ready_from[r] = At<const uint32_t>(rank(), from + layout_.ready);
    rows_.rows_to[r] = At<nv_bfloat16>(r, layout_.Rows(r, rank()));
    rows_.flag_to[r] = At<uint32_t>(r, to + layout_.row_flag);
    rows_.rows_from[r] = At<const nv_bfloat16>(rank(), layout_.Rows(rank(), r));
    rows_.flag_from[r] = At<const uint32_t>(rank(), from + layout_.row_flag);
    back_.back_to[r] = At<nv_bfloat16>(r, layout_.Back(r, rank()));
    back_.back_weight_to[r] = At<float>(r, to + layout_.back_weight);
    back_.flag_to[r] = At<uint32_t>(r, to + layout_.back_flag);
    back_.back_from[r] = At<const nv_bfloat16>(rank(), layout_.Back(rank(), r));
    back_.back_weight_from[r] = At<const float>(rank(), from + layout_.back_weight);
    back_.flag_from[r] = At<const uint32_t>(rank(), from + layout_.back_flag);
  }

  PeerWindow& window_;
  CudaDispatchWindowLayout layout_;
  ExchangeErrorWord error_;
  ExchangeMemory scratch_;
};

}  // namespace

std::unique_ptr<ExchangeDispatcher> MakeCudaWindowDispatcher(PeerWindow& window,
                                                             int64_t num_experts,
                                                             const DispatchWindowShape& shape,
                                                             const ExchangeBlocks& blocks) {
  return std::make_unique<CudaWindowDispatcher>(window, num_experts, shape, blocks);
}

}  // namespace switchyard::trainer
