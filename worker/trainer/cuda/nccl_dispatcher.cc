#include "worker/trainer/cuda/nccl_dispatcher.h"

#include <c10/cuda/CUDAStream.h>

#include <cstddef>

#include "worker/trainer/cuda/exchange_errors.h"
#include "worker/trainer/cuda/exchange_memory.h"

namespace switchyard::trainer {
namespace {

constexpr int64_t kHeader = 1024;  // counters and the error word
constexpr int64_t kTable = 4096;
static_assert(kernels::kExchangeTableInts * sizeof(int32_t) <= kTable);

// One block of memory: header, scratch of the plan, and for every member two pieces, what goes
// there and what comes from there.
struct Layout {
  Layout(int64_t num_experts, const DispatchWindowShape& shape) {
    const auto pad = [](int64_t size) { return (size + 127) / 128 * 128; };
    const int64_t choices = pad(shape.max_tokens * shape.experts_per_token * 4);
    scratch = kHeader;
    pieces = scratch + pad(kernels::DispatchPlanScratchBytes(
                           shape.max_tokens, static_cast<int32_t>(num_experts),
                           static_cast<int32_t>(shape.expert_parallel)));
    choice = kTable;
    weight = choice + choices;
    rows = weight + choices;
    back_weight = rows + pad(shape.max_tokens * shape.hidden_size * 2);
    piece_bytes = back_weight + choices;
    bytes = pieces + 2 * shape.expert_parallel * piece_bytes;
  }
  int64_t To(int64_t member) const { return pieces + 2 * member * piece_bytes; }
  int64_t From(int64_t member) const { return To(member) + piece_bytes; }

  int64_t scratch, pieces;
  int64_t choice, weight, rows, back_weight;  // of a piece; the table is its beginning
  int64_t piece_bytes, bytes;
};

class NcclDispatcher final : public ExchangeDispatcher {
 public:
  NcclDispatcher(NcclCommunicator& communicator, int64_t num_experts,
                 const DispatchWindowShape& shape, const ExchangeBlocks& blocks)
      : ExchangeDispatcher(communicator.rank(), num_experts, shape, blocks),
        communicator_(communicator),
        layout_(num_experts, shape),
        error_(communicator.shared_session()),
        memory_(layout_.bytes) {
    plan_.control = rows_.control = Control(0);
    back_.control = Control(128);
    local_ = Control(256);
    plan_.scratch = At<uint64_t>(layout_.scratch);
    for (int r = 0; r < size(); ++r) {
      const int64_t to = r == rank() ? layout_.From(r) : layout_.To(r), from = layout_.From(r);
      plan_.table_to[r] = At<int32_t>(to);
      plan_.choice_to[r] = At<int32_t>(to + layout_.choice);
      plan_.weight_to[r] = At<float>(to + layout_.weight);
      rows_.table_from[r] = At<int32_t>(from);
      rows_.choice_from[r] = At<int32_t>(from + layout_.choice);
      rows_.weight_from[r] = At<float>(from + layout_.weight);
      // The way back takes the same room: it begins when the rows are consumed.
      rows_.rows_to[r] = back_.back_to[r] = At<nv_bfloat16>(to + layout_.rows);
      rows_.rows_from[r] = back_.back_from[r] = At<nv_bfloat16>(from + layout_.rows);
      back_.back_weight_to[r] = At<float>(to + layout_.back_weight);
      back_.back_weight_from[r] = At<float>(from + layout_.back_weight);
    }
  }

 protected:
  void MoveRows(kernels::ExchangeRowsParams& rows) override {
    Run(rows, kernels::ExchangeRows, [&] {
      std::vector<NcclCommunicator::Parcel> parcels;
      const int64_t choices = rows.num_tokens * rows.top_k * 4;
      if (rows.build) {
        parcels.push_back(Parcel(0, kTable));
        parcels.push_back(Parcel(layout_.choice, choices));
        parcels.push_back(Parcel(layout_.weight, choices));
      }
      parcels.push_back(Parcel(layout_.rows, rows.num_tokens * rows.hidden * 2));
      return parcels;
    });
  }
  void MoveBack(kernels::ExchangeBackParams& back) override {
    Run(back, kernels::ExchangeBack, [&] {
      std::vector<NcclCommunicator::Parcel> parcels;
      parcels.push_back(Parcel(layout_.rows, back.num_tokens * back.hidden * 2));
      if (back.grad_weight_R != nullptr) {
        parcels.push_back(Parcel(layout_.back_weight, back.num_tokens * back.top_k * 4));
      }
      return parcels;
    });
  }
  void Check() override { error_.Check(); }

 private:
  // Packs, carries, unpacks. There is room for the worst routing, and all of it travels: the host
  // does not know how much is used.
  template <typename Params, typename Parcels>
  void Run(Params& params, cudaError_t (*kernel)(const Params&, cudaStream_t),
           const Parcels& parcels) {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    SetBlocks(params, 0);
    const int blocks = params.send_blocks + params.receive_blocks;
    params.send_blocks = blocks;
    params.receive_blocks = 0;
    CheckLaunch(kernel(params, stream), "packing of an exchange");
    communicator_.AllToAll(parcels());
    params.send_blocks = 0;
    params.receive_blocks = blocks;
    CheckLaunch(kernel(params, stream), "unpacking of an exchange");
  }

  NcclCommunicator::Parcel Parcel(int64_t part, int64_t bytes) const {
    NcclCommunicator::Parcel parcel;
    for (int r = 0; r < size(); ++r) {
      parcel.send.push_back(At<std::byte>(layout_.To(r) + part));
      parcel.receive.push_back(At<std::byte>(layout_.From(r) + part));
    }
    parcel.bytes = bytes;
    return parcel;
  }

  template <typename T>
  T* At(int64_t offset) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory_.get()) + offset);
  }

  kernels::ExchangeControl Control(int64_t state) const {
    kernels::ExchangeControl control = {};
    control.state = At<uint32_t>(state);
    control.error = At<uint32_t>(512);
    control.host_error = error_.device();
    control.limit_ns = 1000000000;  // of waits inside this GPU
    control.rank = rank();
    control.size = size();
    return control;
  }

  NcclCommunicator& communicator_;
  Layout layout_;
  ExchangeErrorWord error_;
  ExchangeMemory memory_;
};

}  // namespace

int64_t NcclDispatcherBytes(int64_t num_experts, const DispatchWindowShape& shape) {
  return shape.expert_parallel > 1 ? Layout(num_experts, shape).bytes : 0;
}

std::unique_ptr<ExchangeDispatcher> MakeNcclDispatcher(NcclCommunicator& communicator,
                                                       int64_t num_experts,
                                                       const DispatchWindowShape& shape,
                                                       const ExchangeBlocks& blocks) {
  return std::make_unique<NcclDispatcher>(communicator, num_experts, shape, blocks);
}

}  // namespace switchyard::trainer
