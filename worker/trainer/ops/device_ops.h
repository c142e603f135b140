// The operations of ops/ on a GPU: what they dispatch to when their tensors lie there.
//
// The trainer for CPUs does not load the CUDA libraries; the program with them installs its
// implementation (cuda/cuda_ops.h) once, before the first tensor is made. Meaning, shapes and
// dtypes are those of the functions of the same names in ops/, which are the specification; all
// rows are bfloat16. Everything is enqueued on the current stream; nothing waits for the device or
// allocates.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "common/model/model_shape.h"
#include "worker/trainer/data/batch.h"
#include "worker/trainer/model/arena.h"
#include "worker/trainer/ops/attention.h"
#include "worker/trainer/ops/qk_norm_rope.h"
#include "worker/trainer/ops/router.h"
#include "worker/trainer/ops/rows.h"
#include "worker/trainer/ops/weight_gradient.h"

namespace switchyard::trainer::ops {

// A run of elements of one checkpoint tensor in a flat range; it ends where the next begins.
struct UpdateSegment {
  int64_t begin = 0;          // in the range, a multiple of 8
  int64_t tensor_offset = 0;  // of that element in the checkpoint tensor
  uint32_t tensor_id = 0;     // keys stochastic rounding: the same on any mesh
  float weight_decay = 0;
};

// One AdamW update of a flat run of elements that this rank owns.
struct ShardUpdate {
  at::Tensor weight;               // bfloat16 [n], n a multiple of 8, as are the others
  at::Tensor gradient;             // bfloat16 or float32 [n]
  at::Tensor exp_avg, exp_avg_sq;  // float32 [n], or bfloat16: then rounding is stochastic
  at::Tensor remainder;            // int16 [n] with float32 moments, else undefined
  at::Tensor segments;             // what MakeSegments gave
  at::Tensor scalars;              // uint8: what PrepareUpdate wrote
  // int32, by tensor_id >> 16: 1 is written for tensors with non-finite elements when the step is
  // skipped.
  at::Tensor non_finite;
  double learning_rate = 0, beta1 = 0, beta2 = 0, eps = 0;
  int64_t seed = 0;
};

class DeviceOps {
 public:
  virtual ~DeviceOps() = default;

  // Makes ready for micro-batches of up to `max_tokens` of a model of this shape. Scratch memory is
  // taken from `workspace`, which must outlive the use. Throws c10::Error when the GPU or a library
  // cannot do the shape.
  virtual void Prepare(const ModelShape& shape, int64_t max_tokens, Arena* workspace) = 0;
  // Takes the scratch memory that the deterministic attention of packed documents will want
  // (common/model/packed_attention.h) at once, and not when it is first used. Throws
  // c10::OutOfMemoryError.
  virtual void ReserveAttentionScratch(int64_t bytes) = 0;
  // The batch on the device, for the operations that follow; valid until the next but one call.
  virtual Batch Upload(const Batch& host) = 0;

  // Runs `enqueue` with a second stream as the current one; what it enqueues starts when all that
  // was enqueued on the current stream before the last MarkBeside is done, and runs beside what
  // follows there.
  virtual void MarkBeside() = 0;
  virtual void Beside(const std::function<void()>& enqueue) = 0;
  // What is enqueued from here on starts when all that was enqueued Beside is done.
  virtual void JoinBeside() = 0;

  virtual void RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight, double eps,
                       const at::Tensor& out_TD) = 0;
  virtual void RmsNormBackward(const at::Tensor& grad_out_TD, const at::Tensor& x_TD,
                               const at::Tensor& weight, double eps, const at::Tensor& grad_x_TD,
                               const WeightGradient& grad_weight) = 0;
  virtual void QkNormRopeForward(const QkNormRope& op, const at::Tensor& qkv,
                                 const at::Tensor& qk) = 0;
  virtual void QkNormRopeBackward(const QkNormRope& op, const at::Tensor& qkv,
                                  const QkvGradient& grad, const at::Tensor& grad_qkv,
                                  const WeightGradient& grad_query_weight,
                                  const WeightGradient& grad_key_weight) = 0;
  // Documents are those of the batch uploaded last.
  virtual void CausalAttention(const AttentionShape& shape, const at::Tensor& query,
                               const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& out, const at::Tensor& log_sum_exp) = 0;
  virtual void CausalAttentionBackward(const AttentionShape& shape, const at::Tensor& grad_out,
                                       const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const at::Tensor& out,
                                       const at::Tensor& log_sum_exp, const at::Tensor& grad_query,
                                       const at::Tensor& grad_key,
                                       const at::Tensor& grad_value) = 0;
  virtual void RouteTokens(const RouterRule& rule, const at::Tensor& logits_TE,
                           const at::Tensor& valid_T, const at::Tensor& expert_TK,
                           const at::Tensor& weight_TK, const RouterStatistics& statistics) = 0;
  virtual void RouteTokensBackward(const RouterRule& rule, const at::Tensor& grad_weight_TK,
                                   const at::Tensor& grad_probability_E,
                                   const at::Tensor& logits_TE, const at::Tensor& expert_TK,
                                   const at::Tensor& valid_T, const at::Tensor& grad_logits_TE) = 0;
  // `offset_L1` on the device; x and out hold the whole list, whose length is offset_L1[L].
  virtual void GroupedGemm(const at::Tensor& offset_L1, const at::Tensor& x,
                           const at::Tensor& weight, const at::Tensor& out) = 0;
  // gate_up = the product with weight [L, 2F, D], h = SwiGlu of it, with router weights.
  virtual void GroupedGemmSwiGlu(const at::Tensor& offset_L1, const at::Tensor& x,
                                 const at::Tensor& weight, const at::Tensor& weight_R,
                                 const at::Tensor& gate_up, const at::Tensor& h) = 0;
  virtual void GroupedGemmTransposed(const at::Tensor& offset_L1, const at::Tensor& x,
                                     const at::Tensor& weight, const at::Tensor& out) = 0;
  virtual void GroupedWeightGradient(const at::Tensor& offset_L1, const at::Tensor& grad,
                                     const at::Tensor& x, const WeightGradient& destination) = 0;
  // num_rows: int32 [1] on the device, or undefined for all.
  virtual void SwiGlu(const at::Tensor& gate_up, const at::Tensor& weight_R,
                      const at::Tensor& num_rows, const at::Tensor& out) = 0;
  virtual void SwiGluBackward(const at::Tensor& grad_out, const at::Tensor& weight_R,
                              const at::Tensor& num_rows, const at::Tensor& gate_up,
                              const at::Tensor& out, const at::Tensor& grad_weight_R) = 0;
  // Rows with a negative target have loss 0 and gradient 0.
  virtual void CrossEntropyWithGradient(const at::Tensor& logits_NV, const at::Tensor& target_N,
                                        double scale, const at::Tensor& loss_N) = 0;
  virtual void SortTokens(const at::Tensor& id_T, int64_t vocab, const TokensById& out) = 0;
  virtual void AddEmbeddingGradient(const EmbeddingRows& rows, const TokensById& order,
                                    const TablePart& part) = 0;

  // sum (float64 [1]) += squares of a flat bfloat16 or float32 tensor whose size is a multiple
  // of 8.
  virtual void SumOfSquares(const at::Tensor& flat, const at::Tensor& sum) = 0;
  // On the device, for ShardUpdate; `segments` cover the range from 0 on.
  virtual at::Tensor MakeSegments(const std::vector<UpdateSegment>& segments) = 0;
  // On the device: what PrepareUpdate decides, with the number of updates so far.
  virtual at::Tensor MakeUpdateScalars(int64_t updates) = 0;
  // Updates counted there. Waits for the device.
  virtual int64_t ReadUpdates(const at::Tensor& scalars) = 0;
  // Decides the update on the device: the factor of clipping to max_norm (0: none) from the
  // gradient's sum of squares, and whether all of that and `finite` (float64) are finite, else the
  // step is skipped; counts the steps that are not.
  virtual void PrepareUpdate(const at::Tensor& sum_of_squares, const at::Tensor& finite,
                             double max_norm, double beta1, double beta2,
                             const at::Tensor& scalars) = 0;
  virtual void UpdateShard(const ShardUpdate& update) = 0;
};

// The installed implementation; throws c10::Error in a program without one.
DeviceOps& Device();
// Not owned.
void InstallDeviceOps(DeviceOps* device_ops);

}  // namespace switchyard::trainer::ops
