#include "worker/trainer/train/check.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/trainer/checkpoint/gather_parameters.h"
#include "worker/trainer/checkpoint/model_io.h"
#include "worker/trainer/checkpoint/safetensors_tensor.h"
#include "worker/trainer/data/row_batch.h"
#include "worker/trainer/optim/sharded_optimizer.h"
#include "worker/trainer/train/exit_code.h"
#include "worker/trainer/train/rank_context.h"

namespace switchyard::trainer {
namespace {

template <typename T>
T ValueOrThrow(absl::StatusOr<T> value, ExitCode code) {
  if (!value.ok()) throw TrainerError(code, std::string(value.status().message()));
  return *std::move(value);
}

void OkOrThrow(const absl::Status& status, ExitCode code) {
  if (!status.ok()) throw TrainerError(code, std::string(status.message()));
}

RowBatch ReadRows(const std::string& path) {
  RowBatch rows;
  for (auto& [name, tensor] : ValueOrThrow(ReadTensors(path), ExitCode::kData)) {
    if (name == "input_ids") {
      rows.input_ids = tensor;
    } else if (name == "labels") {
      rows.labels = tensor;
    } else if (name == "position_ids") {
      rows.position_ids = tensor;
    } else {
      throw TrainerError(ExitCode::kData,
                         absl::StrCat(path, ": tensor ", name,
                                      " is not known; input_ids, labels and position_ids are"));
    }
  }
  for (const auto& [name, tensor] :
       {std::pair("input_ids", rows.input_ids), std::pair("labels", rows.labels)}) {
    if (!tensor.defined())
      throw TrainerError(ExitCode::kData, absl::StrCat(path, " has no tensor ", name));
  }
  return rows;
}

// MakeBatch, with its complaints as errors of the batch.
Batch CheckedBatch(const RowBatch& rows, int64_t vocab_size, const std::string& path) {
  try {
    return MakeBatch(rows, vocab_size);
  } catch (const c10::Error& error) {
    throw TrainerError(ExitCode::kData, absl::StrCat(path, ": ", error.what_without_backtrace()));
  }
}

// Rows begin .. begin + count - 1; those beyond the last are padding.
RowBatch Share(const RowBatch& rows, int64_t begin, int64_t count) {
  const int64_t total = rows.input_ids.size(0), length = rows.input_ids.size(1);
  const int64_t first = std::min(begin, total), last = std::min(begin + count, total);
  const auto part = [&](const at::Tensor& source, int64_t fill) {
    at::Tensor out = at::full({count, length}, fill, at::kLong);
    if (last > first) out.narrow(0, 0, last - first).copy_(source.slice(0, first, last));
    return out;
  };
  RowBatch share;
  share.input_ids = part(rows.input_ids, 0);
  share.labels = part(rows.labels, -100);
  if (rows.position_ids.defined()) share.position_ids = part(rows.position_ids, 0);
  share.valid = at::zeros({count, length}, at::kBool);
  share.valid.narrow(0, 0, last - first).fill_(true);
  return share;
}

at::Tensor Scalar(double value) { return at::full({}, value, at::kFloat); }

}  // namespace

void RunCheck(const CheckOptions& options) {
  const ModelShape shape = ValueOrThrow(ReadModelConfig(options.model), ExitCode::kModel);
  const CheckpointFiles files =
      ValueOrThrow(CheckpointFiles::Open(options.model), ExitCode::kModel);
  const RowBatch rows = ReadRows(options.batch);
  const int64_t targets = CheckedBatch(rows, shape.vocab_size, options.batch).num_targets;
  if (targets == 0)
    throw TrainerError(ExitCode::kData, absl::StrCat(options.batch, " has no target"));
  const int64_t sequences = rows.input_ids.size(0), length = rows.input_ids.size(1);
  const int64_t share = (sequences + options.ranks - 1) / options.ranks;
  const Batch batch = MakeBatch(Share(rows, options.rank * share, share), shape.vocab_size);

  const std::unique_ptr<RankContext> rank = ConnectRank({.shape = shape,
                                                         .ranks = options.ranks,
                                                         .expert_parallel = options.expert_parallel,
                                                         .rank = options.rank,
                                                         .device = options.device,
                                                         .deterministic = true,
                                                         .precision = options.precision,
                                                         .micro_batch_sequences = share,
                                                         .sequence_length = length,
                                                         .activations = options.activations,
                                                         .job_uid = options.job_uid,
                                                         .rendezvous_id = options.rendezvous_id});
  Decoder& decoder = *rank->decoder;
  MeshCommunicators& communicators = rank->communicators();
  ShardedOptimizer optimizer(decoder.parameters(), communicators, {options.adamw});
  OkOrThrow(LoadModel(options.model, decoder.parameters(), &optimizer.state()), ExitCode::kModel);
  const BlockTensors gradients = [&](int block) { return decoder.BlockGradient(block); };
  const BlockTensors values = [&](int block) { return decoder.parameters().BlockValues(block); };
  const auto gather = [&](const char* prefix, const BlockTensors& blocks, Replicas replicas) {
    return GatherParameters(shape, decoder.parameters(), communicators, files, prefix, blocks,
                            replicas);
  };

  const at::Tensor own = decoder.Logits(batch).to(at::kFloat);
  at::Tensor logits = at::empty({options.ranks * own.size(0), own.size(1)}, own.options());
  communicators.world->AllGather(own, logits);
  logits = logits.cpu();

  const LossScale scale = {1.0 / static_cast<double>(targets), shape.router_aux_loss_coef};
  NamedTensors out;
  for (int64_t step = 0; step < std::max<int64_t>(1, options.steps); ++step) {
    decoder.ZeroGradients();
    // The first step's gradients are each rank's own; the others are reduced as in a run.
    const FinalGradients reduce =
        step > 0 ? optimizer.ReduceWhenFinal(gradients) : FinalGradients();
    const MicroBatchResult result = decoder.ForwardBackward(batch, scale, nullptr, reduce);
    if (step == 0) {
      at::Tensor cross_entropy = result.sums.narrow(0, 0, 1).clone();
      communicators.world->AllReduce(cross_entropy);
      const double loss =
          cross_entropy.item<double>() * scale.cross_entropy + scale.aux * result.aux_loss();
      out = {{"logits", logits.narrow(0, 0, sequences * length).view({sequences, length, -1})},
             {"loss", Scalar(loss)},
             {"aux_loss", Scalar(result.aux_loss())}};
      NamedTensors named = gather("grad.", gradients, Replicas::kSum);
      out.insert(out.end(), named.begin(), named.end());
    }
    if (options.steps == 0) break;
    const at::Tensor squares = optimizer.ReduceGradients(gradients);
    communicators.world->AllReduce(squares);
    optimizer.Update(gradients, options.learning_rate, options.max_grad_norm, squares, result.sums);
  }
  if (options.steps > 0) {
    NamedTensors named = gather("param.", values, Replicas::kEqual);
    out.insert(out.end(), named.begin(), named.end());
  }
  if (options.rank == 0) OkOrThrow(WriteTensors(options.out, out), ExitCode::kOutput);
  communicators.world->Barrier();
}

}  // namespace switchyard::trainer
