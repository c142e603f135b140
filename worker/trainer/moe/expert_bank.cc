#include "worker/trainer/moe/expert_bank.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "worker/trainer/ops/device_products.h"
#include "worker/trainer/ops/grouped_gemm.h"
#include "worker/trainer/ops/swiglu.h"

namespace switchyard::trainer {
namespace {

// Calls fn(begin, count) for pieces of at most `capacity` of `rows` rows. An empty list is one
// empty piece.
template <typename Fn>
void ForPieces(int64_t rows, int64_t capacity, const Fn& fn) {
  int64_t begin = 0;
  do {
    const int64_t count = std::min(capacity, rows - begin);
    fn(begin, count);
    begin += count;
  } while (begin < rows);
}

// Makes ready what `products` asks for, together (device_products.h); on a CPU there is nothing to.
void Prepare(const at::Tensor& rows_RD, const std::function<void()>& products) {
  if (!rows_RD.is_cpu()) ops::Products().PrepareGrouped(products);
}

}  // namespace

ExpertBank::ExpertBank(const ModelShape& shape, const ParameterRegistry& registry,
                       const GradientStore& gradients, int layer)
    : width_(shape.moe_intermediate_size) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".mlp.experts.");
  const int gate_up = registry.Find(prefix + "gate_up_proj");
  const int down = registry.Find(prefix + "down_proj");
  gate_up_proj_ = registry.Value(gate_up);
  down_proj_ = registry.Value(down);
  grad_gate_up_proj_ = gradients.Destination(gate_up);
  grad_down_proj_ = gradients.Destination(down);
}

void ExpertBank::Forward(StepContext& context, Arena& slot, const Routing& routing,
                         const at::Tensor& rows_RD, at::Tensor out_RD) {
  const int64_t capacity = std::min(context.row_capacity, rows_RD.size(0));
  const bool saved = context.saved.gate_up;
  gate_up_ = saved ? slot.Take({capacity, 2 * width_}, context.dtype) : at::Tensor();
  if (context.rows_on_device) return ForwardOnDevice(context, routing, rows_RD, out_RD);
  ArenaScope scope(context.workspace);
  const at::Tensor room =
      saved ? gate_up_ : context.workspace.Take({capacity, 2 * width_}, context.dtype);
  const at::Tensor hidden = context.workspace.Take({capacity, width_}, context.dtype);
  ForPieces(routing.max_rows, capacity, [&](int64_t begin, int64_t count) {
    const ops::ExpertRows piece{routing.expert_offset_L1, begin};
    const at::Tensor rows = rows_RD.narrow(0, begin, count);
    const at::Tensor gate_up = room.narrow(0, 0, count);
    const at::Tensor h = hidden.narrow(0, 0, count);
    ops::GroupedGemmSwiGlu(piece, rows, gate_up_proj_, routing.weight_R.narrow(0, begin, count),
                           gate_up, h);
    ops::GroupedGemm(piece, h, down_proj_, out_RD.narrow(0, begin, count));
  });
}

void ExpertBank::Backward(StepContext& context, const Routing& routing, const at::Tensor& rows_RD,
                          at::Tensor grad_rows_RD, at::Tensor grad_weight_R) {
  if (context.rows_on_device) {
    return BackwardOnDevice(context, routing, rows_RD, grad_rows_RD, grad_weight_R);
  }
  const int64_t capacity = std::min(context.row_capacity, rows_RD.size(0));
  const bool saved = gate_up_.defined() && routing.max_rows <= capacity;
  ArenaScope scope(context.workspace);
  const at::Tensor room =
      gate_up_.defined() ? gate_up_ : context.workspace.Take({capacity, 2 * width_}, context.dtype);
  const at::Tensor hidden = context.workspace.Take({capacity, width_}, context.dtype);
  const at::Tensor grad_hidden = context.workspace.Take({capacity, width_}, context.dtype);
  const at::Tensor num_rows = routing.expert_offset_L1.slice(0, -1);
  ForPieces(routing.max_rows, capacity, [&](int64_t begin, int64_t count) {
    const ops::ExpertRows piece{routing.expert_offset_L1, begin};
    const at::Tensor rows = rows_RD.narrow(0, begin, count);
    const at::Tensor grad_rows = grad_rows_RD.narrow(0, begin, count);
    const at::Tensor gate_up = room.narrow(0, 0, count);
    const at::Tensor h = hidden.narrow(0, 0, count), grad_h = grad_hidden.narrow(0, 0, count);
    if (!saved) ops::GroupedGemm(piece, rows, gate_up_proj_, gate_up);
    ops::GroupedGemmTransposed(piece, grad_rows, down_proj_, grad_h);
    ops::SwiGluBackward(grad_h, routing.weight_R.narrow(0, begin, count), gate_up, h,
                        grad_weight_R.narrow(0, begin, count), num_rows);
    ops::GroupedWeightGradient(piece, grad_rows, h, grad_down_proj_);
    ops::GroupedWeightGradient(piece, gate_up, rows, grad_gate_up_proj_);
    ops::GroupedGemmTransposed(piece, gate_up, gate_up_proj_, grad_rows);
  });
}

void ExpertBank::ForwardOnDevice(StepContext& context, const Routing& routing,
                                 const at::Tensor& rows_RD, at::Tensor out_RD) {
  const int64_t saved = gate_up_.defined() ? gate_up_.size(0) : 0;
  const int64_t rest = rows_RD.size(0) - saved;
  ArenaScope scope(context.workspace);
  const at::Tensor h = context.workspace.Take({saved + rest, width_}, context.dtype);
  const auto up = [&](int64_t begin, int64_t count, const at::Tensor& gate_up) {
    ops::GroupedGemmSwiGlu({routing.expert_offset_L1, begin}, rows_RD.narrow(0, begin, count),
                           gate_up_proj_, routing.weight_R.narrow(0, begin, count), gate_up,
                           h.narrow(0, begin, count));
  };
  const auto down = [&] { ops::GroupedGemm({routing.expert_offset_L1, 0}, h, down_proj_, out_RD); };
  at::Tensor rest_gate_up;
  if (rest > 0) rest_gate_up = context.workspace.Take({rest, 2 * width_}, context.dtype);
  const auto products = [&] {
    if (saved > 0) up(0, saved, gate_up_);
    if (rest > 0) up(saved, rest, rest_gate_up);
    down();
  };
  // With two pieces the second needs what the first was made ready by.
  if (saved == 0 || rest == 0) Prepare(rows_RD, products);
  products();
}

void ExpertBank::BackwardOnDevice(StepContext& context, const Routing& routing,
                                  const at::Tensor& rows_RD, at::Tensor grad_rows_RD,
                                  at::Tensor grad_weight_R) {
  const int64_t saved = gate_up_.defined() ? gate_up_.size(0) : 0;
  const int64_t rest = rows_RD.size(0) - saved;
  ArenaScope scope(context.workspace);
  const ops::ExpertRows all{routing.expert_offset_L1, 0};
  const at::Tensor h = context.workspace.Take({saved + rest, width_}, context.dtype);
  const at::Tensor grad_h = context.workspace.Take({saved + rest, width_}, context.dtype);
  // Gradients of weights need all rows at once; kept gate/up may become its gradient in place only
  // when it is all there is.
  at::Tensor gate_up = gate_up_;
  if (rest > 0) gate_up = context.workspace.Take({saved + rest, 2 * width_}, context.dtype);
  const auto hidden_gradient = [&] {
    ops::GroupedGemmTransposed(all, grad_rows_RD, down_proj_, grad_h);
  };
  const auto other_gradients = [&] {
    ops::GroupedWeightGradient(all, grad_rows_RD, h, grad_down_proj_);
    ops::GroupedWeightGradient(all, gate_up, rows_RD, grad_gate_up_proj_);
    ops::GroupedGemmTransposed(all, gate_up, gate_up_proj_, grad_rows_RD);
  };
  Prepare(rows_RD, [&] {
    hidden_gradient();
    other_gradients();
  });
  hidden_gradient();
  if (rest > 0) {
    if (saved > 0) gate_up.narrow(0, 0, saved).copy_(gate_up_);
    ops::GroupedGemm({routing.expert_offset_L1, saved}, rows_RD.narrow(0, saved, rest),
                     gate_up_proj_, gate_up.narrow(0, saved, rest));
  }
  ops::SwiGluBackward(grad_h, routing.weight_R.narrow(0, 0, saved + rest), gate_up, h,
                      grad_weight_R.narrow(0, 0, saved + rest),
                      routing.expert_offset_L1.slice(0, -1));
  other_gradients();
}

}  // namespace switchyard::trainer
