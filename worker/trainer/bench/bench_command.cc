#include "worker/trainer/bench/bench_command.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/model/model_shape.h"
#include "common/model/packed_attention.h"
#include "common/model/rank_memory.h"
#include "worker/trainer/bench/bench_step.h"
#include "worker/trainer/bench/calibrate.h"
#include "worker/trainer/bench/checkpoint_bench.h"
#include "worker/trainer/model/phase_timer.h"
#include "worker/trainer/optim/sharded_optimizer.h"
#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/local_ranks.h"
#include "worker/trainer/train/rank_channels.h"
#include "worker/trainer/train/rank_context.h"

namespace switchyard::trainer {
namespace {

ModelShape ReadShape(const BenchOptions& options) {
  absl::StatusOr<ModelShape> shape = absl::InvalidArgumentError("");
  if (std::filesystem::is_directory(options.model_config)) {
    shape = ReadModelConfig(options.model_config);
  } else {
    const absl::StatusOr<std::string> text = ReadSmallFile(options.model_config, 16 << 20);
    if (!text.ok()) {
      throw TrainerError(
          ExitCode::kModel,
          absl::StrFormat("--model-config is \"%s\": %s; give the path of a config.json, or of a "
                          "directory with one",
                          options.model_config, text.status().message()));
    }
    shape = ParseModelConfig(*text);
  }
  if (!shape.ok()) throw TrainerError(ExitCode::kModel, std::string(shape.status().message()));
  if (options.layers > 0) {
    shape->is_moe_layer.resize(options.layers,
                               shape->is_moe_layer.empty() || shape->is_moe_layer.back());
    shape->num_layers = options.layers;
  }
  if (options.documents > options.sequence_length) {
    throw TrainerError(ExitCode::kConfig,
                       absl::StrFormat("--documents is %d, but a sequence has only %d tokens",
                                       options.documents, options.sequence_length));
  }
  return *shape;
}

// First token of every document of the batch, and the end of the last.
std::vector<int32_t> DocumentOffsets(const BenchOptions& options, std::mt19937& random) {
  std::vector<int32_t> offsets;
  for (int64_t sequence = 0; sequence < options.micro_batch; ++sequence) {
    std::set<int64_t> begins = {0};
    while (static_cast<int64_t>(begins.size()) < options.documents) {
      begins.insert(
          static_cast<int64_t>(random() % static_cast<uint64_t>(options.sequence_length)));
    }
    for (int64_t begin : begins)
      offsets.push_back(static_cast<int32_t>(sequence * options.sequence_length + begin));
  }
  offsets.push_back(static_cast<int32_t>(options.micro_batch * options.sequence_length));
  return offsets;
}

}  // namespace

Batch RandomBatch(const BenchOptions& options, int64_t vocab_size, uint32_t seed) {
  Batch batch;
  batch.num_sequences = options.micro_batch;
  batch.sequence_length = options.sequence_length;
  const int64_t tokens = options.micro_batch * options.sequence_length;
  std::mt19937 random(seed);
  const std::vector<int32_t> offsets = DocumentOffsets(options, random);
  batch.document_offset = at::zeros({static_cast<int64_t>(offsets.size())}, at::kInt);
  std::copy(offsets.begin(), offsets.end(), batch.document_offset.mutable_data_ptr<int32_t>());
  batch.input_id_T = at::zeros({tokens}, at::kLong);
  batch.target_T = at::full({tokens}, -100, at::kLong);
  batch.position_T = at::zeros({tokens}, at::kLong);
  auto* input = batch.input_id_T.mutable_data_ptr<int64_t>();
  auto* target = batch.target_T.mutable_data_ptr<int64_t>();
  auto* position = batch.position_T.mutable_data_ptr<int64_t>();
  for (int64_t t = 0; t < tokens; ++t)
    input[t] = static_cast<int64_t>(random() % static_cast<uint64_t>(vocab_size));
  for (size_t document = 0; document + 1 < offsets.size(); ++document) {
    for (int64_t t = offsets[document]; t < offsets[document + 1]; ++t) {
      position[t] = t - offsets[document];
      if (t + 1 < offsets[document + 1]) target[t] = input[t + 1];
    }
  }
  batch.valid_T = at::full({tokens}, true, at::kBool);
  batch.num_tokens = tokens;
  batch.num_targets = tokens - static_cast<int64_t>(offsets.size() - 1);
  return batch;
}

void EnqueueStep(const BenchOptions& options, RankContext& context, ShardedOptimizer* optimizer,
                 const Batch& batch, PhaseTimer* phases) {
  Decoder& decoder = *context.decoder;
  const double targets =
      static_cast<double>(batch.num_targets * options.ranks * options.accumulation);
  const BlockGradients gradients = [&decoder](int block) { return decoder.BlockGradient(block); };
  at::Tensor sums;
  decoder.ZeroGradients();
  for (int64_t i = 0; i < options.accumulation; ++i) {
    const bool last = i + 1 == options.accumulation;
    FinalGradients reduce;
    if (last && optimizer != nullptr) reduce = optimizer->ReduceWhenFinal(gradients);
    const LossScale scale = {1.0 / targets,
                             options.aux_loss_coef / static_cast<double>(options.accumulation)};
    sums = decoder.ForwardBackward(batch, scale, phases, reduce).sums;
  }
  if (optimizer == nullptr) return;
  const auto enter = [phases](StepPhase phase) {
    if (phases != nullptr) phases->Enter(phase);
  };
  enter(StepPhase::kReduceGradients);
  const at::Tensor squares = optimizer->ReduceGradients(gradients);
  enter(StepPhase::kAgree);
  context.communicators().world->AllReduce(squares);
  enter(StepPhase::kUpdate);
  optimizer->Update(gradients, 1e-5, 1.0, squares, sums);
}

namespace {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

// Times of the measured steps, on the device.
struct StepTimes {
  std::vector<double> seconds;
  std::map<std::string, std::vector<double>> phases;
};

void PrintPhases(const StepTimes& times) {
  if (times.phases.empty()) return;
  std::printf("phases, ms  ");
  double rest = Median(times.seconds);
  for (const auto& [name, seconds] : times.phases) {
    std::printf(" %s %.2f,", name.c_str(), Median(seconds) * 1e3);
    rest -= Median(seconds);
  }
  std::printf(" rest %.2f\n", rest * 1e3);
}

// Tokens of the document that a token lies in, mean over the tokens: attention's operations go with
// it, not with the length of sequences.
int64_t MeanDocumentLength(const Batch& batch) {
  const int32_t* offset = batch.document_offset.const_data_ptr<int32_t>();
  const int64_t documents = batch.document_offset.numel() - 1;
  double squares = 0;
  for (int64_t i = 0; i < documents; ++i) {
    squares += static_cast<double>(offset[i + 1] - offset[i]) * (offset[i + 1] - offset[i]);
  }
  return std::llround(squares / offset[documents]);
}

// With the scratch that the deterministic attention of these documents wants.
int64_t PlannedBytes(const BenchOptions& options, const Batch& batch, const Decoder& decoder) {
  const RankMemory& memory = decoder.memory();
  const ModelShape& shape = decoder.options().shape;
  int64_t bytes = memory.Total() - (options.optimizer == "none" ? memory.optimizer : 0);
  if (!options.deterministic) return bytes;
  const std::span<const int32_t> offsets(batch.document_offset.const_data_ptr<int32_t>(),
                                         static_cast<size_t>(batch.document_offset.numel()));
  const DocumentClass documents =
      ScratchDocuments(offsets, batch.num_sequences, batch.sequence_length);
  return bytes +
         DeterministicAttentionBytes(DeterministicScratchBytes(documents, shape.num_heads),
                                     batch.input_id_T.numel() * shape.num_heads * shape.head_dim);
}

void Print(const BenchOptions& options, const ModelShape& shape, const Batch& batch,
           const StepTimes& times, int threads, const Decoder& decoder, const DeviceMemory& before,
           const DeviceMemory& after) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  const std::vector<double>& seconds = times.seconds;
  const double median = Median(seconds);
  const auto [fastest, slowest] = std::minmax_element(seconds.begin(), seconds.end());
  const auto tokens = static_cast<double>(options.ranks * options.accumulation *
                                          options.micro_batch * options.sequence_length);
  const ArenaUse arenas = decoder.arena_use();
  std::printf("model        %s, %d layers, %.1f M parameters\n", shape.model_type.c_str(),
              static_cast<int>(shape.num_layers), static_cast<double>(shape.NumParameters()) / 1e6);
  std::printf("mesh         %d ranks, expert parallel %d, gate %s, %s, optimizer %s%s\n",
              options.ranks, options.expert_parallel, options.gate.c_str(), options.dtype.c_str(),
              options.optimizer.c_str(), options.deterministic ? ", deterministic" : "");
  std::printf(
      "step         %.1f ms, %d sequences of %d tokens and %d documents a rank (median of %d; %.1f "
      "to %.1f)\n",
      median * 1e3, static_cast<int>(options.micro_batch * options.accumulation),
      static_cast<int>(options.sequence_length), static_cast<int>(options.documents),
      static_cast<int>(seconds.size()), *fastest * 1e3, *slowest * 1e3);
  std::printf("throughput   %.0f tokens/s, %.0f a rank, %.1f TFLOP/s a rank\n", tokens / median,
              tokens / median / options.ranks,
              tokens * shape.TrainingFlopsPerToken(MeanDocumentLength(batch)) / median / 1e12 /
                  options.ranks);
  PrintPhases(times);
  std::printf("arenas       %.2f GiB planned, %.2f used, activations %s\n",
              static_cast<double>(arenas.planned) / kGiB,
              static_cast<double>(arenas.high_water) / kGiB,
              ActivationMemoryName(decoder.memory().activations));
  if (GpuBackend() == nullptr) {
    std::printf("memory       peak %.2f GiB a rank, %d threads\n",
                static_cast<double>(PeakMemoryBytes()) / kGiB, threads);
    return;
  }
  std::printf("memory       peak %.2f GiB of the allocator, %.2f of the GPU, plan %.2f\n",
              static_cast<double>(after.peak_bytes) / kGiB,
              static_cast<double>(after.used_bytes) / kGiB,
              static_cast<double>(PlannedBytes(options, batch, decoder)) / kGiB);
  // Two buffers bring micro-batches to the GPU: with several in a step the host may wait for one.
  std::printf("in a step    %d allocations of the driver, %d bytes more than before, %s\n",
              static_cast<int>(after.allocations - before.allocations),
              static_cast<int>(after.current_bytes - before.current_bytes),
              options.accumulation == 1 ? "no wait" : "waits only to stay two micro-batches ahead");
}

RunEnd BenchRank(BenchOptions options, int rank, RankChannels& channels) {
  if (options.calibrate) return Calibrate(options, rank, channels);
  const bool gpu = options.device == "cuda";
  if (options.dtype.empty()) options.dtype = gpu ? "bfloat16" : "float32";
  RankOptions connect;
  connect.shape = ReadShape(options);
  connect.ranks = options.ranks;
  connect.expert_parallel = options.expert_parallel;
  connect.rank = rank;
  connect.gate = options.gate;
  connect.device = options.device;
  connect.deterministic = options.deterministic;
  connect.precision = options.dtype == "float32" ? Precision::kFloat32 : Precision::kBfloat16;
  connect.optimizer =
      options.optimizer == "compact" ? OptimizerProfile::kCompact : OptimizerProfile::kExact;
  connect.micro_batch_sequences = options.micro_batch;
  connect.sequence_length = options.sequence_length;
  connect.gradient_accumulation = options.accumulation;
  connect.activations = ActivationMemoryByName(options.activation_memory);
  connect.job_uid = "bench";
  const int threads = SetThreads(options.threads, options.ranks);
  connect.rendezvous_id = AgreeOnRendezvous(channels, rank, options.ranks, options.device);
  const std::unique_ptr<RankContext> context = ConnectRank(connect);
  context->decoder->InitializeRandom(0);
  std::optional<ShardedOptimizer> optimizer;
  if (options.optimizer != "none") {
    optimizer.emplace(context->decoder->parameters(), context->communicators(),
                      ShardedOptimizerOptions{{}, connect.optimizer});
  }
  if (!options.checkpoint.empty()) {
    if (!optimizer)
      throw TrainerError(ExitCode::kConfig, "--checkpoint needs an --optimizer to save");
    BenchCheckpoint(options, *context, *optimizer);
    return {};
  }
  const Batch batch = RandomBatch(options, connect.shape.vocab_size, static_cast<uint32_t>(rank));

  DeviceMemory before, after;
  StepTimes times;
  std::vector<PhaseTimer> timers;  // of the newest step, the one before and the one before that
  for (int i = 0; i < 3; ++i) {
    timers.emplace_back(context->decoder->options().device, options.accumulation,
                        connect.shape.num_moe_layers());
  }
  const auto timer = [&timers](int64_t step) -> PhaseTimer& { return timers[step % 3]; };
  // A step's time is the distance of its end from the end of the one before.
  const auto finish = [&](int64_t step) {
    const double total = timer(step).TotalSeconds();  // waits
    context->communicators().world->Check();
    if (step < options.warmup) return;
    times.seconds.push_back(
        step > options.warmup ? timer(step).end().SecondsSince(timer(step - 1).end()) : total);
    if (!options.phases) return;
    for (const auto& [name, seconds] : timer(step).Seconds()) times.phases[name].push_back(seconds);
  };
  const int64_t ahead = gpu ? 1 : 0;  // steps that the host is ahead of the device
  const int64_t steps = options.warmup + options.steps;
  for (int64_t i = 0; i < steps + ahead; ++i) {
    if (gpu && i == options.warmup) {
      GpuBackend()->Synchronize();
      before = GpuBackend()->Memory();
      GpuBackend()->ForbidWaiting(true);
    }
    if (i < steps) {
      timer(i).Begin();
      EnqueueStep(options, *context, optimizer ? &*optimizer : nullptr, batch,
                  options.phases ? &timer(i) : nullptr);
      timer(i).End();
    }
    if (i >= ahead) finish(i - ahead);
  }
  if (gpu) {
    GpuBackend()->ForbidWaiting(false);
    GpuBackend()->Synchronize();
    after = GpuBackend()->Memory();
  }
  std::string kernels;
  if (gpu && !options.trace.empty()) {  // every rank takes the step
    if (rank == 0) GpuBackend()->StartTrace();
    EnqueueStep(options, *context, optimizer ? &*optimizer : nullptr, batch, nullptr);
    GpuBackend()->Synchronize();
    if (rank == 0) kernels = GpuBackend()->StopTrace(options.trace);
  }
  if (rank == 0) {
    Print(options, connect.shape, batch, times, threads, *context->decoder, before, after);
  }
  std::printf("%s", kernels.c_str());
  return {ExitCode::kOk, "", options.warmup + options.steps};
}

}  // namespace

int BenchCommand(const BenchOptions& options, const std::vector<std::string>& arguments) {
  // A single rank, too: it is measured in the environment that a job's ranks have.
  if (options.rank < 0) return RunLocalRanks({options.ranks, arguments, nullptr});
  DieWithParent();
  BecomeProgramFor(options.device);
  RankChannels channels(/*inherited=*/true);
  const RunEnd end = Guarded([&] { return BenchRank(options, options.rank, channels); });
  if (end.code != ExitCode::kOk) return SayExit(channels, end);
  std::fflush(stdout);
  return 0;
}

}  // namespace switchyard::trainer
