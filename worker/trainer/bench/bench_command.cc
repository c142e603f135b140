#include "worker/trainer/bench/bench_command.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <random>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/model/model_shape.h"
#include "worker/trainer/optim/sharded_optimizer.h"
#include "worker/trainer/train/local_ranks.h"
#include "worker/trainer/train/rank_channels.h"
#include "worker/trainer/train/rank_context.h"

namespace switchyard::trainer {
namespace {

using Clock = std::chrono::steady_clock;

struct StepTimes {
  double forward_backward = 0;
  double reduce_gradients = 0;
  double update = 0;
  double total() const { return forward_backward + reduce_gradients + update; }
};

ModelShape ReadShape(const BenchOptions& options) {
  absl::StatusOr<ModelShape> shape = absl::InvalidArgumentError("");
  if (std::filesystem::is_directory(options.model_config)) {
    shape = ReadModelConfig(options.model_config);
  } else {
    const absl::StatusOr<std::string> text = ReadSmallFile(options.model_config, 16 << 20);
    shape = text.ok() ? ParseModelConfig(*text) : text.status();
  }
  if (!shape.ok()) throw TrainerError(ExitCode::kModel, std::string(shape.status().message()));
  if (options.layers > 0) {
    shape->is_moe_layer.resize(options.layers,
                               shape->is_moe_layer.empty() || shape->is_moe_layer.back());
    shape->num_layers = options.layers;
  }
  return *shape;
}

// Full sequences of random tokens, one document each.
Batch RandomBatch(const BenchOptions& options, int64_t vocab_size, uint32_t seed) {
  Batch batch;
  batch.num_sequences = options.micro_batch;
  batch.sequence_length = options.sequence_length;
  const int64_t tokens = options.micro_batch * options.sequence_length;
  std::mt19937 random(seed);
  batch.input_id_T = at::zeros({tokens}, at::kLong);
  batch.target_T = at::full({tokens}, -100, at::kLong);
  auto* input = batch.input_id_T.mutable_data_ptr<int64_t>();
  auto* target = batch.target_T.mutable_data_ptr<int64_t>();
  for (int64_t t = 0; t < tokens; ++t)
    input[t] = static_cast<int64_t>(random() % static_cast<uint64_t>(vocab_size));
  for (int64_t t = 0; t + 1 < tokens; ++t) {
    if ((t + 1) % options.sequence_length != 0) target[t] = input[t + 1];
  }
  batch.position_T = at::arange(tokens, at::kLong).remainder(options.sequence_length);
  batch.valid_T = at::full({tokens}, true, at::kBool);
  batch.document_offset =
      (at::arange(options.micro_batch + 1, at::kLong).mul_(options.sequence_length)).to(at::kInt);
  batch.num_tokens = tokens;
  batch.num_targets = options.micro_batch * (options.sequence_length - 1);
  return batch;
}

StepTimes OneStep(const BenchOptions& options, RankContext& context, ShardedOptimizer& optimizer,
                  const Batch& batch) {
  Decoder& decoder = *context.decoder;
  StepTimes times;
  auto last = Clock::now();
  const auto since_last = [&last] {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - last).count();
    last = now;
    return seconds;
  };
  const double targets =
      static_cast<double>(batch.num_targets * options.ranks * options.accumulation);
  decoder.ZeroGradients();
  for (int64_t i = 0; i < options.accumulation; ++i) {
    decoder.ForwardBackward(batch,
                            {1.0 / targets, 0.001 / static_cast<double>(options.accumulation)});
  }
  times.forward_backward = since_last();
  const BlockGradients gradients = [&decoder](int block) { return decoder.BlockGradient(block); };
  at::Tensor squares = at::full({1}, optimizer.ReduceGradients(gradients), at::kDouble);
  context.communicators().world->AllReduce(squares);
  times.reduce_gradients = since_last();
  optimizer.Update(gradients, 1e-5, ClipScale(std::sqrt(*squares.const_data_ptr<double>()), 1.0));
  times.update = since_last();
  return times;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

void Print(const BenchOptions& options, const ModelShape& shape,
           const std::vector<StepTimes>& steps, int threads, const ArenaUse& arenas) {
  const auto median = [&](auto part) {
    std::vector<double> values;
    for (const StepTimes& step : steps) values.push_back(part(step));
    return Median(values);
  };
  const double seconds = median([](const StepTimes& s) { return s.total(); });
  const int64_t tokens =
      options.ranks * options.accumulation * options.micro_batch * options.sequence_length;
  std::printf("model        %s, %d layers, %.1f M parameters\n", shape.model_type.c_str(),
              static_cast<int>(shape.num_layers), static_cast<double>(shape.NumParameters()) / 1e6);
  std::printf("mesh         %d ranks, expert parallel %d, %d threads a rank, gate %s, %s\n",
              options.ranks, options.expert_parallel, threads, options.gate.c_str(),
              options.dtype.c_str());
  std::printf("step         %.1f ms, %d tokens (median of %d)\n", seconds * 1e3,
              static_cast<int>(tokens), static_cast<int>(steps.size()));
  std::printf("throughput   %.0f tokens/s, %.1f GFLOP/s\n", static_cast<double>(tokens) / seconds,
              static_cast<double>(tokens) * shape.TrainingFlopsPerToken(options.sequence_length) /
                  seconds / 1e9);
  std::printf("phases       forward+backward %.1f ms, reduce gradients %.1f ms, update %.1f ms\n",
              median([](const StepTimes& s) { return s.forward_backward; }) * 1e3,
              median([](const StepTimes& s) { return s.reduce_gradients; }) * 1e3,
              median([](const StepTimes& s) { return s.update; }) * 1e3);
  std::printf("memory       peak %.1f MiB a rank; arenas %.1f of %.1f MiB\n",
              static_cast<double>(PeakMemoryBytes()) / (1 << 20),
              static_cast<double>(arenas.high_water) / (1 << 20),
              static_cast<double>(arenas.planned) / (1 << 20));
}

RunEnd BenchRank(const BenchOptions& options, int rank, RankChannels& channels) {
  RankOptions connect;
  connect.shape = ReadShape(options);
  connect.ranks = options.ranks;
  connect.expert_parallel = options.expert_parallel;
  connect.rank = rank;
  connect.gate = options.gate;
  connect.precision = options.dtype == "float32" ? Precision::kFloat32 : Precision::kBfloat16;
  connect.micro_batch_sequences = options.micro_batch;
  connect.sequence_length = options.sequence_length;
  connect.gradient_accumulation = options.accumulation;
  connect.job_uid = "bench";
  const int threads = SetThreads(options.threads, options.ranks);
  connect.rendezvous_id = AgreeOnRendezvous(channels, rank, options.ranks);
  const std::unique_ptr<RankContext> context = ConnectRank(connect);
  context->decoder->InitializeRandom(0);
  ShardedOptimizer optimizer(context->decoder->parameters(), context->communicators(),
                             AdamWOptions{});
  const Batch batch = RandomBatch(options, connect.shape.vocab_size, static_cast<uint32_t>(rank));
  std::vector<StepTimes> steps;
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    const StepTimes times = OneStep(options, *context, optimizer, batch);
    if (i >= options.warmup) steps.push_back(times);
  }
  if (rank == 0) Print(options, connect.shape, steps, threads, context->decoder->arena_use());
  return {ExitCode::kOk, "", options.warmup + options.steps};
}

}  // namespace

int BenchCommand(const BenchOptions& options, const std::vector<std::string>& arguments) {
  // A single rank, too: it is measured in the environment that a job's ranks have.
  if (options.rank < 0) return RunLocalRanks({options.ranks, arguments, nullptr});
  DieWithParent();
  RankChannels channels(/*inherited=*/true);
  const RunEnd end = Guarded([&] { return BenchRank(options, options.rank, channels); });
  if (end.code != ExitCode::kOk) return SayExit(channels, end);
  std::fflush(stdout);
  return 0;
}

}  // namespace switchyard::trainer
