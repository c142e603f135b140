#include "worker/trainer/cuda/cuda_ops.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>

#include <functional>
#include <optional>
#include <vector>

#include "common/model/cuda_limits.h"
#include "common/model/rank_memory.h"
#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/dispatch.h"
#include "kernels/embedding_gradient.h"
#include "kernels/qk_norm_rope.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"
#include "kernels/sum_of_squares.h"
#include "kernels/swiglu.h"
#include "worker/trainer/cuda/attention_plans.h"
#include "worker/trainer/cuda/batch_upload.h"
#include "worker/trainer/cuda/cuda_check.h"
#include "worker/trainer/cuda/dense_gemms.h"
#include "worker/trainer/cuda/grouped_gemms.h"
#include "worker/trainer/ops/device_products.h"

namespace switchyard::trainer::cuda {
namespace {

using kernels::GroupedOutput;
using kernels::GroupedProduct;

static_assert(CudaLimits::kMaxHidden == kernels::kMaxRmsNormHidden &&
              CudaLimits::kMaxHeadsWidth == kernels::kMaxHeadsWidth);
static_assert(CudaLimits::kMaxExperts == kernels::kMaxRouterExperts &&
              CudaLimits::kMaxExperts == kernels::kMaxExchangeExperts);
static_assert(CudaLimits::kMaxExpertsPerToken == kernels::kMaxTopK &&
              CudaLimits::kMaxExpertsPerToken == kernels::kMaxExchangeTopK);
static_assert(CudaLimits::kMaxExpertParallel == kernels::kMaxExchangeRanks);
static_assert(kEmbeddingPiece == kernels::kEmbeddingPiece);

class CudaOps final : public ops::DeviceOps, public ops::DeviceProducts {
 public:
  explicit CudaOps(const CudaOpsOptions& options)
      : attention_(options.deterministic),
        beside_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true)) {
    for (cudaEvent_t* event : {&before_beside_, &after_beside_}) {
      Check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
    }
  }
  ~CudaOps() override {
    cudaEventDestroy(before_beside_);
    cudaEventDestroy(after_beside_);
  }

  void Prepare(const ModelShape& shape, int64_t max_tokens, Arena* workspace) override {
    attention_shape_ = {shape.num_heads, shape.num_kv_heads, shape.head_dim};
    workspace_ = workspace;
    upload_.emplace(max_tokens);
    row_of_token_ = at::arange(max_tokens, at::TensorOptions().dtype(at::kInt).device(at::kCUDA));
  }

  void ReserveAttentionScratch(int64_t bytes) override { attention_.ReserveScratch(bytes); }

  Batch Upload(const Batch& host) override {
    Batch batch = upload_->Upload(host);
    attention_.Select(attention_shape_, host, Data<int32_t>(batch.document_offset));
    return batch;
  }

  void MarkBeside() override {
    Check(cudaEventRecord(before_beside_, Stream()), "cudaEventRecord");
  }

  void Beside(const std::function<void()>& enqueue) override {
    Check(cudaStreamWaitEvent(beside_.stream(), before_beside_), "cudaStreamWaitEvent");
    const c10::cuda::CUDAStreamGuard guard(beside_);
    enqueue();
  }

  void JoinBeside() override {
    Check(cudaEventRecord(after_beside_, beside_.stream()), "cudaEventRecord");
    Check(cudaStreamWaitEvent(Stream(), after_beside_), "cudaStreamWaitEvent");
  }

  void AddProduct(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                  const at::Tensor& out) override {
    dense_.AddProduct(c, a, b, out);
  }

  void RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight, double eps,
               const at::Tensor& out_TD) override {
    kernels::RmsNormForwardParams p{};
    p.x_TD = Bf16(x_TD), p.gamma_D = Bf16(weight), p.y_TD = Bf16(out_TD);
    p.num_tokens = x_TD.size(0), p.hidden = static_cast<int32_t>(x_TD.size(1));
    p.eps = static_cast<float>(eps);
    Check(kernels::RmsNormForward(p, Stream()), "RmsNormForward");
  }

  void RmsNormBackward(const at::Tensor& grad_out_TD, const at::Tensor& x_TD,
                       const at::Tensor& weight, double eps, const at::Tensor& grad_x_TD,
                       const ops::WeightGradient& grad_weight) override {
    const ArenaScope scope(*workspace_);
    kernels::RmsNormBackwardParams p{};
    p.x_TD = Bf16(x_TD), p.gamma_D = Bf16(weight), p.grad_y_TD = Bf16(grad_out_TD);
    p.residual_gradient_TD = p.grad_x_TD = Bf16(grad_x_TD);
    const Gradient gradient(*this, grad_weight);
    p.grad_gamma_D = gradient.data();
    p.num_tokens = x_TD.size(0), p.hidden = static_cast<int32_t>(x_TD.size(1));
    p.eps = static_cast<float>(eps);
    void* scratch = Scratch(kernels::RmsNormBackwardWorkspaceBytes(p.hidden));
    Check(kernels::RmsNormBackward(p, scratch, Stream()), "RmsNormBackward");
    gradient.Finish();
  }

  void QkNormRopeForward(const ops::QkNormRope& op, const at::Tensor& qkv,
                         const at::Tensor& qk) override {
    kernels::QkNormRopeForwardParams p{};
    p.qkv_T = Bf16(qkv), p.q_gamma_C = Bf16(op.query_weight), p.k_gamma_C = Bf16(op.key_weight);
    p.position_T = Data<int32_t>(row_of_token_), p.rope_table = RopeTable(op);
    p.qk_T = Bf16(qk), p.num_tokens = qkv.size(0);
    p.num_heads = static_cast<int32_t>(op.num_heads);
    p.num_kv_heads = static_cast<int32_t>(op.num_kv_heads);
    p.head_dim = static_cast<int32_t>(op.head_dim), p.eps = static_cast<float>(op.eps);
    Check(kernels::QkNormRopeForward(p, Stream()), "QkNormRopeForward");
  }

  void QkNormRopeBackward(const ops::QkNormRope& op, const at::Tensor& qkv,
                          const ops::QkvGradient& grad, const at::Tensor& grad_qkv,
                          const ops::WeightGradient& grad_query_weight,
                          const ops::WeightGradient& grad_key_weight) override {
    const ArenaScope scope(*workspace_);
    kernels::QkNormRopeBackwardParams p{};
    p.qkv_T = Bf16(qkv), p.q_gamma_C = Bf16(op.query_weight), p.k_gamma_C = Bf16(op.key_weight);
    p.position_T = Data<int32_t>(row_of_token_), p.rope_table = RopeTable(op);
    TORCH_CHECK(grad.key.is_contiguous() && grad.value.is_contiguous(),
                "on CUDA the gradients of keys and values are contiguous");
    p.grad_query_T = Bf16(grad.query), p.grad_key_T = Bf16(grad.key);
    p.grad_value_T = Bf16(grad.value), p.grad_qkv_T = Bf16(grad_qkv);
    p.grad_query_stride = static_cast<int32_t>(grad.query.stride(0));
    const Gradient query(*this, grad_query_weight), key(*this, grad_key_weight);
    p.grad_q_gamma_C = query.data(), p.grad_k_gamma_C = key.data();
    p.num_tokens = qkv.size(0), p.num_heads = static_cast<int32_t>(op.num_heads);
    p.num_kv_heads = static_cast<int32_t>(op.num_kv_heads);
    p.head_dim = static_cast<int32_t>(op.head_dim), p.eps = static_cast<float>(op.eps);
    void* scratch = Scratch(kernels::QkNormRopeBackwardWorkspaceBytes(p.head_dim));
    Check(kernels::QkNormRopeBackward(p, scratch, Stream()), "QkNormRopeBackward");
    query.Finish();
    key.Finish();
  }

  void CausalAttention(const ops::AttentionShape&, const at::Tensor& query, const at::Tensor& key,
                       const at::Tensor& value, const at::Tensor& out,
                       const at::Tensor& log_sum_exp) override {
    const ArenaScope scope(*workspace_);
    kernels::Attention& plan = attention_.plan();
    const kernels::AttentionBuffers buffers = Buffers(query, key, value, out, log_sum_exp);
    void* scratch = Scratch(plan.forward_workspace_bytes());
    TORCH_CHECK(plan.Forward(buffers, scratch, Stream()), "cuDNN refused attention's forward");
  }

  void CausalAttentionBackward(const ops::AttentionShape&, const at::Tensor& grad_out,
                               const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, const at::Tensor& out,
                               const at::Tensor& log_sum_exp, const at::Tensor& grad_query,
                               const at::Tensor& grad_key, const at::Tensor& grad_value) override {
    const ArenaScope scope(*workspace_);
    kernels::Attention& plan = attention_.plan();
    kernels::AttentionBuffers buffers = Buffers(query, key, value, out, log_sum_exp);
    buffers.grad_out = Bf16(grad_out), buffers.grad_query = Bf16(grad_query);
    buffers.grad_key = Bf16(grad_key), buffers.grad_value = Bf16(grad_value);
    void* scratch = attention_.own_scratch();
    if (scratch == nullptr) scratch = Scratch(plan.backward_workspace_bytes());
    TORCH_CHECK(plan.Backward(buffers, scratch, Stream()), "cuDNN refused attention's backward");
  }

  void RouteTokens(const ops::RouterRule& rule, const at::Tensor& logits_TE,
                   const at::Tensor& valid_T, const at::Tensor& expert_TK,
                   const at::Tensor& weight_TK, const ops::RouterStatistics& statistics) override {
    const ArenaScope scope(*workspace_);
    kernels::RouterForwardParams p{};
    p.logits_TE = Bf16(logits_TE), p.valid_T = Data<bool>(valid_T);
    p.expert_TK = Data<int32_t>(expert_TK), p.weight_TK = Data<float>(weight_TK);
    p.count_E = Data<int32_t>(statistics.count_E);
    p.probability_sum_E = Data<float>(statistics.probability_E);
    p.entropy_sum = Data<float>(statistics.entropy);
    p.num_tokens = logits_TE.size(0), p.num_experts = static_cast<int32_t>(logits_TE.size(1));
    p.top_k = static_cast<int32_t>(rule.top_k), p.renormalise = rule.renormalize;
    Check(cudaMemsetAsync(p.count_E, 0, statistics.count_E.nbytes(), Stream()), "cudaMemsetAsync");
    void* scratch = Scratch(kernels::RouterForwardWorkspaceBytes(p.num_experts));
    Check(kernels::RouterForward(p, scratch, Stream()), "RouterForward");
  }

  void RouteTokensBackward(const ops::RouterRule& rule, const at::Tensor& grad_weight_TK,
                           const at::Tensor& grad_probability_E, const at::Tensor& logits_TE,
                           const at::Tensor& expert_TK, const at::Tensor& valid_T,
                           const at::Tensor& grad_logits_TE) override {
    kernels::RouterBackwardParams p{};
    p.logits_TE = Bf16(logits_TE), p.valid_T = Data<bool>(valid_T);
    p.expert_TK = Data<int32_t>(expert_TK), p.grad_weight_TK = Data<float>(grad_weight_TK);
    p.balance_gradient_E = Data<float>(grad_probability_E);
    p.grad_logits_TE = Bf16(grad_logits_TE);
    p.num_tokens = logits_TE.size(0), p.num_experts = static_cast<int32_t>(logits_TE.size(1));
    p.top_k = static_cast<int32_t>(rule.top_k), p.renormalise = rule.renormalize;
    Check(kernels::RouterBackward(p, Stream()), "RouterBackward");
  }

  void GroupedGemm(const at::Tensor& offset_L1, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& out) override {
    grouped_.Run(GroupedProduct::kForward, GroupedOutput::kBfloat16, offset_L1, x, weight, out,
                 weight.size(1), weight.size(2));
  }
  void GroupedGemmSwiGlu(const at::Tensor& offset_L1, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& weight_R, const at::Tensor& gate_up,
                         const at::Tensor& h) override {
    grouped_.Run(GroupedProduct::kForwardSwiglu, GroupedOutput::kBfloat16, offset_L1, x, weight,
                 gate_up, weight.size(1), weight.size(2), {Data<float>(weight_R), Bf16(h)});
  }
  void GroupedGemmTransposed(const at::Tensor& offset_L1, const at::Tensor& x,
                             const at::Tensor& weight, const at::Tensor& out) override {
    grouped_.Run(GroupedProduct::kTransposed, GroupedOutput::kBfloat16, offset_L1, x, weight, out,
                 weight.size(1), weight.size(2));
  }
  void GroupedWeightGradient(const at::Tensor& offset_L1, const at::Tensor& grad,
                             const at::Tensor& x, const ops::WeightGradient& d) override {
    const GroupedOutput output = d.value.scalar_type() == at::kBFloat16 ? GroupedOutput::kBfloat16
                                 : d.accumulate                         ? GroupedOutput::kFloat32Add
                                                                        : GroupedOutput::kFloat32;
    grouped_.Run(GroupedProduct::kWeightGradient, output, offset_L1, grad, x, d.value,
                 d.value.size(1), d.value.size(2));
  }
  void PrepareGrouped(const std::function<void()>& calls) override { grouped_.Prepare(calls); }

  void SwiGlu(const at::Tensor& gate_up, const at::Tensor& weight_R, const at::Tensor& num_rows,
              const at::Tensor& out) override {
    kernels::SwigluForwardParams p{};
    p.gate_up_R2F = Bf16(gate_up), p.weight_R = Data<float>(weight_R), p.h_RF = Bf16(out);
    p.max_rows = out.size(0), p.num_rows = Data<int32_t>(num_rows);
    p.ffn = static_cast<int32_t>(out.size(1));
    Check(kernels::SwigluForward(p, Stream()), "SwigluForward");
  }

  void SwiGluBackward(const at::Tensor& grad_out, const at::Tensor& weight_R,
                      const at::Tensor& num_rows, const at::Tensor& gate_up, const at::Tensor& out,
                      const at::Tensor& grad_weight_R) override {
    kernels::SwigluBackwardParams p{};
    p.gate_up_R2F = Bf16(gate_up), p.weight_R = Data<float>(weight_R);
    p.grad_h_RF = Bf16(grad_out), p.grad_gate_up_R2F = Bf16(gate_up), p.h_RF = Bf16(out);
    p.grad_weight_R = Data<float>(grad_weight_R);
    p.max_rows = out.size(0), p.num_rows = Data<int32_t>(num_rows);
    p.ffn = static_cast<int32_t>(out.size(1));
    Check(kernels::SwigluBackward(p, Stream()), "SwigluBackward");
  }

  void CrossEntropyWithGradient(const at::Tensor& logits_NV, const at::Tensor& target_N,
                                double scale, const at::Tensor& loss_N) override {
    kernels::CrossEntropyParams p{};
    p.logits_TV = Bf16(logits_NV), p.target_T = Data<int64_t>(target_N);
    p.loss_T = Data<float>(loss_N), p.num_tokens = logits_NV.size(0);
    p.vocab = static_cast<int32_t>(logits_NV.size(1)), p.scale = static_cast<float>(scale);
    Check(kernels::CrossEntropyInPlace(p, Stream()), "CrossEntropyInPlace");
  }

  void SortTokens(const at::Tensor& id_T, int64_t vocab, const ops::TokensById& out) override {
    const kernels::SortTokensParams p{Data<int64_t>(id_T), Data<int32_t>(out.id_T),
                                      Data<int32_t>(out.token_T), id_T.numel(),
                                      static_cast<int32_t>(vocab)};
    void* scratch = Scratch(kernels::SortTokensWorkspaceBytes(p.num_tokens, p.vocab));
    Check(kernels::SortTokens(p, scratch, Stream()), "SortTokens");
  }

  void AddEmbeddingGradient(const ops::EmbeddingRows& rows, const ops::TokensById& order,
                            const ops::TablePart& part) override {
    const bool bf16 = part.table_VD.scalar_type() == at::kBFloat16;
    kernels::EmbeddingGradientParams p{};
    p.sorted_id_T = Data<int32_t>(order.id_T), p.token_T = Data<int32_t>(order.token_T);
    p.grad_y_TD = Bf16(rows.grad_TD);
    p.grad_table_VD = bf16 ? Bf16(part.table_VD) : nullptr;
    p.grad_table_float32_VD = bf16 ? nullptr : Data<float>(part.table_VD);
    p.first_element = part.first_element, p.end_element = part.end_element;
    p.skipped_id = rows.skipped_id, p.num_tokens = rows.grad_TD.size(0);
    p.hidden = static_cast<int32_t>(rows.grad_TD.size(1)), p.add = part.add;
    const ArenaScope scope(*workspace_);
    void* scratch = Scratch(kernels::EmbeddingGradientWorkspaceBytes(p.num_tokens, p.hidden));
    Check(kernels::EmbeddingGradient(p, scratch, Stream()), "EmbeddingGradient");
  }

  void SumOfSquares(const at::Tensor& flat, const at::Tensor& sum) override {
    // Runs beside other work: scratch of its own.
    if (!squares_scratch_.defined()) {
      squares_scratch_ = at::empty({kernels::SumOfSquaresWorkspaceBytes()},
                                   at::TensorOptions().dtype(at::kByte).device(at::kCUDA));
    }
    kernels::SumOfSquaresParams p{};
    const bool bf16 = flat.scalar_type() == at::kBFloat16;
    p.x = bf16 ? Bf16(flat) : nullptr, p.x_float32 = bf16 ? nullptr : Data<float>(flat);
    p.numel = flat.numel(), p.sum = Data<double>(sum), p.accumulate = true;
    Check(kernels::SumOfSquares(p, squares_scratch_.data_ptr(), Stream()), "SumOfSquares");
  }

  at::Tensor MakeSegments(const std::vector<ops::UpdateSegment>& segments) override {
    std::vector<kernels::AdamwSegment> all;
    all.reserve(segments.size());
    for (const ops::UpdateSegment& s : segments)
      all.push_back({s.begin, s.tensor_offset, s.tensor_id, s.weight_decay});
    return ToDevice(all.data(), static_cast<int64_t>(all.size() * sizeof(all[0])));
  }

  at::Tensor MakeUpdateScalars(int64_t updates) override {
    kernels::AdamwScalars scalars{};
    scalars.step = static_cast<uint32_t>(updates);
    return ToDevice(&scalars, sizeof(scalars));
  }

  int64_t ReadUpdates(const at::Tensor& scalars) override {
    kernels::AdamwScalars host{};
    Check(
        cudaMemcpyAsync(&host, scalars.data_ptr(), sizeof(host), cudaMemcpyDeviceToHost, Stream()),
        "cudaMemcpyAsync");
    Check(cudaStreamSynchronize(Stream()), "cudaStreamSynchronize");
    return host.step;
  }

  void PrepareUpdate(const at::Tensor& sum_of_squares, const at::Tensor& finite, double max_norm,
                     double beta1, double beta2, const at::Tensor& scalars) override {
    kernels::PrepareAdamwParams p{};
    p.sum_of_squares = Data<double>(sum_of_squares), p.finite = Data<double>(finite);
    p.num_finite = static_cast<int32_t>(finite.numel()), p.max_norm = max_norm;
    p.beta1 = static_cast<float>(beta1), p.beta2 = static_cast<float>(beta2);
    p.scalars = Data<kernels::AdamwScalars>(scalars);
    Check(kernels::PrepareAdamw(p, Stream()), "PrepareAdamw");
  }

  void UpdateShard(const ops::ShardUpdate& u) override {
    kernels::AdamwParams p{};
    p.weight = Bf16(u.weight);
    const bool compact = u.exp_avg.scalar_type() == at::kBFloat16;
    p.remainder = compact ? nullptr : Data<int16_t>(u.remainder);
    p.exp_avg = compact ? nullptr : Data<float>(u.exp_avg);
    p.exp_avg_sq = compact ? nullptr : Data<float>(u.exp_avg_sq);
    p.compact_exp_avg = compact ? Bf16(u.exp_avg) : nullptr;
    p.compact_exp_avg_sq = compact ? Bf16(u.exp_avg_sq) : nullptr;
    const bool bf16 = u.gradient.scalar_type() == at::kBFloat16;
    p.grad = bf16 ? Bf16(u.gradient) : nullptr;
    p.grad_float32 = bf16 ? nullptr : Data<float>(u.gradient);
    p.numel = u.weight.numel(), p.segments = Data<kernels::AdamwSegment>(u.segments);
    p.num_segments =
        static_cast<int32_t>(u.segments.nbytes() / static_cast<int64_t>(sizeof(*p.segments)));
    p.scalars = Data<kernels::AdamwScalars>(u.scalars);
    p.non_finite = Data<int32_t>(u.non_finite);
    p.learning_rate = static_cast<float>(u.learning_rate);
    p.beta1 = static_cast<float>(u.beta1), p.beta2 = static_cast<float>(u.beta2);
    p.eps = static_cast<float>(u.eps), p.seed = static_cast<uint64_t>(u.seed);
    Check(compact ? kernels::AdamwCompact(p, Stream()) : kernels::AdamwExact(p, Stream()),
          compact ? "AdamwCompact" : "AdamwExact");
  }

 private:
  static at::Tensor ToDevice(const void* data, int64_t bytes) {
    at::Tensor out = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(at::kCUDA));
    Check(cudaMemcpyAsync(out.data_ptr(), data, bytes, cudaMemcpyHostToDevice, Stream()),
          "cudaMemcpyAsync");
    Check(cudaStreamSynchronize(Stream()), "cudaStreamSynchronize");
    return out;
  }

  // Where a kernel that sets a bfloat16 gradient writes it: the destination, or scratch that is
  // added to a float32 sum.
  class Gradient {
   public:
    Gradient(CudaOps& owner, const ops::WeightGradient& destination)
        : destination_(destination),
          direct_(!destination.accumulate && destination.value.scalar_type() == at::kBFloat16),
          value_(direct_ ? destination.value
                         : owner.workspace_->Take(destination.value.sizes(), at::kBFloat16)) {}
    nv_bfloat16* data() const { return Bf16(value_); }
    void Finish() const {
      if (!direct_) ops::WriteGradient(value_, destination_);
    }

   private:
    const ops::WeightGradient& destination_;
    bool direct_;
    at::Tensor value_;
  };

  // From the workspace; the caller's ArenaScope gives it back.
  void* Scratch(int64_t bytes) { return workspace_->Take({bytes}, at::kByte).data_ptr(); }

  static const float2* RopeTable(const ops::QkNormRope& op) {
    TORCH_CHECK(op.cos.stride(1) == 2 && Data<float>(op.sin) == Data<float>(op.cos) + 1,
                "on CUDA cos and sin are the two planes of one [T, C / 2, 2] tensor");
    return reinterpret_cast<const float2*>(op.cos.data_ptr());
  }

  kernels::AttentionBuffers Buffers(const at::Tensor& query, const at::Tensor& key,
                                    const at::Tensor& value, const at::Tensor& out,
                                    const at::Tensor& log_sum_exp) const {
    kernels::AttentionBuffers buffers;
    buffers.query = Bf16(query), buffers.key = Bf16(key), buffers.value = Bf16(value);
    buffers.out = Bf16(out), buffers.log_sum_exp = Data<float>(log_sum_exp);
    buffers.documents = attention_.documents();
    return buffers;
  }

  AttentionPlans attention_;
  c10::cuda::CUDAStream beside_;  // of high priority: what runs there is waited for
  cudaEvent_t before_beside_ = nullptr, after_beside_ = nullptr;
  GroupedGemms grouped_;
  DenseGemms dense_;
  std::optional<BatchUpload> upload_;
  ops::AttentionShape attention_shape_;
  Arena* workspace_ = nullptr;
  at::Tensor squares_scratch_;
  at::Tensor row_of_token_;  // int32 [max tokens]: 0, 1, ...
};

}  // namespace

std::unique_ptr<ops::DeviceOps> MakeCudaOps(const CudaOpsOptions& options) {
  auto made = std::make_unique<CudaOps>(options);
  ops::InstallDeviceProducts(made.get());
  return made;
}

}  // namespace switchyard::trainer::cuda
