#include "worker/trainer/train/training_run.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/checkpoint_publish.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/model/rank_memory.h"
#include "common/units.h"
#include "worker/trainer/checkpoint/checkpoint_save.h"
#include "worker/trainer/checkpoint/checkpoint_verify.h"
#include "worker/trainer/checkpoint/model_io.h"
#include "worker/trainer/checkpoint/training_state.h"
#include "worker/trainer/data/attention_scratch.h"
#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/train/evaluation.h"
#include "worker/trainer/train/expert_load.h"
#include "worker/trainer/train/lines.h"
#include "worker/trainer/train/rank_context.h"
#include "worker/trainer/train/train_step.h"

namespace switchyard::trainer {
namespace {

constexpr int kMaxConsecutiveSkips = 3;
constexpr std::chrono::seconds kProgressInterval{1};

void ThrowUnlessOk(const absl::Status& status, ExitCode code) {
  if (!status.ok()) throw TrainerError(code, std::string(status.message()));
}

template <typename T>
T ValueOrThrow(absl::StatusOr<T> value, ExitCode code) {
  ThrowUnlessOk(value.status(), code);
  return *std::move(value);
}

// A checkpoint that says something else than the configuration: DataLoss is damage, the rest a
// wrong choice.
ExitCode ResumeCode(const absl::Status& status) {
  return absl::IsInvalidArgument(status) ? ExitCode::kConfig : ExitCode::kCheckpointCorrupt;
}

class TrainingRun {
 public:
  TrainingRun(const TrainerConfig& config, const std::string& config_json, int rank,
              RankChannels& channels)
      : config_(config),
        config_json_(config_json),
        rank_(rank),
        channels_(channels),
        reporter_(channels.reporter),
        control_(channels.control) {}

  RunEnd Run();
  int64_t step() const { return progress_.step; }

 private:
  void RefuseOutputOfAnotherJob() const;
  void OpenData();
  // Without what the data and the other ranks say.
  RankOptions OptionsOfRank() const;
  void Load(const RankOptions& options);
  void ReserveAttentionScratch();
  void Resume();
  // False when the run was asked to end meanwhile.
  bool Evaluate();
  bool BetweenEvaluationBatches(double done);
  void ReportStep(const StepResult& result);
  void CountSkip(const StepResult& result);
  void Save(const std::string& stage, const std::string& final_path, bool final);
  // At most once a step.
  void SaveStep();
  RunEnd Stopped() const;
  void Phase(const char* name, double progress = 0) {
    reporter_.Lifecycle(PhaseLine(name, progress));
  }
  bool EveryFew(int64_t interval) const { return interval > 0 && progress_.step % interval == 0; }
  // Whether an evaluation or a checkpoint follows step `step`.
  bool IsBoundary(int64_t step) const {
    const auto every = [step](int64_t interval) { return interval > 0 && step % interval == 0; };
    return every(config_.checkpoint.interval_steps) ||
           (eval_data_ && every(config_.training.eval_interval_steps));
  }

  const TrainerConfig& config_;
  const std::string& config_json_;
  const int rank_;
  RankChannels& channels_;
  Reporter& reporter_;
  ControlReader& control_;

  ModelShape shape_;
  std::optional<TokenShards> train_data_;
  std::optional<TokenShards> eval_data_;
  std::optional<BatchOrder> order_;
  std::unique_ptr<RankContext> context_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
  TrainingProgress progress_{.initial_eval_loss = std::numeric_limits<double>::quiet_NaN()};
  ExpertLoadSummary expert_load_;      // of the newest sampled step
  std::vector<std::string> evidence_;  // of the skipped steps in a row
  int64_t saved_step_ = -1;            // that this attempt saved last
  std::chrono::steady_clock::time_point progress_told_;
};

RunEnd TrainingRun::Run() {
  Phase("loading");
  if (rank_ == 0) {
    ThrowUnlessOk(MakeWritableDirectory(config_.checkpoint.output), ExitCode::kOutput);
    RefuseOutputOfAnotherJob();
  }
  shape_ = ValueOrThrow(ReadModelConfig(config_.model), ExitCode::kModel);
  RankOptions options = OptionsOfRank();
  RefuseWhatNoGpuTrains(options);
  // Before the data, which rank 0 reads whole: the others must not take it for lost.
  options.rendezvous_id = AgreeOnRendezvous(channels_, rank_, config_.ranks, config_.device);
  OpenData();
  options.gradient_accumulation = order_->accumulation_steps();
  Load(options);
  reporter_.Lifecycle(ReadyLine(rank_, progress_.step, context_->decoder->arena_use().planned));

  if (eval_data_ && progress_.step == 0 && !Evaluate()) return Stopped();

  const TrainerConfig::Training& t = config_.training;
  TrainStep train_step(*context_->decoder, *optimizer_, context_->communicators(), *train_data_,
                       *order_,
                       {.schedule = {t.schedule, t.learning_rate, t.min_learning_rate_ratio,
                                     t.warmup_steps, t.total_steps},
                        .max_grad_norm = t.max_grad_norm,
                        .router_aux_loss_coef = t.router_aux_loss_coef});
  Phase("training", static_cast<double>(progress_.step) / static_cast<double>(t.total_steps));
  const int64_t first_step = progress_.step + 1;
  // On a GPU one step is enqueued while the one before still runs, but never beyond a step after
  // which something needs the values as they are then.
  const size_t ahead = train_step.on_cpu() ? 0 : 1;
  std::deque<PendingStep> pending;
  int64_t enqueued = progress_.step;
  Requests agreed;
  while (progress_.step < t.total_steps) {
    while (enqueued < t.total_steps && pending.size() <= ahead && !agreed.checkpoint &&
           !agreed.stop && (pending.empty() || !IsBoundary(enqueued))) {
      const int64_t step = ++enqueued;
      const bool sample = step == first_step || step % config_.expert_load_interval_steps == 0;
      pending.push_back(train_step.Enqueue(step, control_.requests(), sample));
    }
    const StepResult result = train_step.Finish(std::move(pending.front()));
    pending.pop_front();
    ++progress_.step;
    progress_.tokens += result.tokens;
    control_.Done(result.agreed);
    agreed.checkpoint = agreed.checkpoint || result.agreed.checkpoint;
    agreed.stop = agreed.stop || result.agreed.stop;
    ReportStep(result);
    CountSkip(result);
    if (!pending.empty()) continue;

    const bool last = progress_.step == t.total_steps;
    const Requests asked = std::exchange(agreed, {});
    if (asked.checkpoint) SaveStep();
    if (asked.stop) return Stopped();
    if (eval_data_ && !last && EveryFew(t.eval_interval_steps) && !Evaluate()) return Stopped();
    if (!last && EveryFew(config_.checkpoint.interval_steps)) SaveStep();
  }

  if (eval_data_ && !Evaluate()) return Stopped();
  Save(config_.FinalStagePath(), config_.FinalPath(), true);
  return {ExitCode::kOk, absl::StrFormat("%d steps done", progress_.step), progress_.step};
}

void TrainingRun::RefuseOutputOfAnotherJob() const {
  std::vector<std::string> directories = {config_.FinalPath()};
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::directory_iterator(config_.checkpoint.output + "/checkpoints", ignored)) {
    directories.push_back(entry.path().string());
  }
  for (const std::string& directory : directories) {
    const absl::StatusOr<CheckpointIdentity> identity = ReadCheckpointIdentity(directory);
    if (!identity.ok() || identity->job_uid == config_.job_uid) continue;
    throw TrainerError(
        ExitCode::kOutput,
        absl::StrFormat("%s belongs to job %s, this is job %s; choose another checkpoint.output",
                        directory, identity->job_uid, config_.job_uid));
  }
}

void TrainingRun::OpenData() {
  // One rank reads every byte; the others map.
  const TokenShardsOptions options = {config_.sequence_length, shape_.vocab_size, rank_ == 0};
  train_data_ = ValueOrThrow(TokenShards::Open(config_.train_data, options), ExitCode::kData);
  if (train_data_->num_sequences() == 0) {
    throw TrainerError(ExitCode::kData, absl::StrCat(config_.train_data, " holds no sequence"));
  }
  if (!config_.eval_data.empty()) {
    eval_data_ = ValueOrThrow(TokenShards::Open(config_.eval_data, options), ExitCode::kData);
  }
  const TrainerConfig::Training& t = config_.training;
  order_.emplace(BatchOrderOptions{train_data_->num_sequences(), t.global_batch_sequences,
                                   config_.ranks, t.micro_batch_sequences, t.seed});
}

RankOptions TrainingRun::OptionsOfRank() const {
  RankOptions options;
  options.shape = shape_;
  options.ranks = config_.ranks;
  options.expert_parallel = config_.expert_parallel;
  options.rank = rank_;
  options.precision = config_.precision == "float32" ? Precision::kFloat32 : Precision::kBfloat16;
  options.optimizer =
      config_.optimizer == "compact" ? OptimizerProfile::kCompact : OptimizerProfile::kExact;
  options.device = config_.device;
  options.deterministic = config_.training.deterministic;
  options.micro_batch_sequences = config_.training.micro_batch_sequences;
  options.sequence_length = config_.sequence_length;
  options.activations = ActivationMemoryByName(config_.training.activation_memory);
  options.job_uid = config_.job_uid;
  options.epoch = config_.epoch;
  return options;
}

void TrainingRun::Load(const RankOptions& options) {
  context_ = ConnectRank(options);
  const TrainerConfig::Training& t = config_.training;
  ParameterRegistry& registry = context_->decoder->parameters();
  optimizer_ = std::make_unique<ShardedOptimizer>(
      registry, context_->communicators(),
      ShardedOptimizerOptions{
          {t.beta1, t.beta2, t.eps, t.weight_decay}, options.optimizer, t.seed});
  ReserveAttentionScratch();
  if (config_.resume_from.empty()) {
    ThrowUnlessOk(LoadModel(config_.model, registry, &optimizer_->state()), ExitCode::kModel);
  } else {
    Resume();
  }
  context_->communicators().world->Barrier();  // all have loaded, or this throws
}

// What would otherwise be missed for the first time in the middle of the run.
void TrainingRun::ReserveAttentionScratch() {
  const TrainerConfig::Training& t = config_.training;
  if (context_->decoder->options().device.is_cpu() || !t.deterministic) return;
  const AttentionScratch largest =
      LargestAttentionScratch(*train_data_, *order_, t.total_steps, rank_, shape_.num_heads);
  const int64_t elements =
      t.micro_batch_sequences * config_.sequence_length * shape_.num_heads * shape_.head_dim;
  const int64_t wanted = DeterministicAttentionBytes(largest.bytes, elements);
  if (wanted == 0) return;
  try {
    ops::Device().ReserveAttentionScratch(wanted);
  } catch (const c10::OutOfMemoryError&) {
    throw TrainerError(
        ExitCode::kConfig,
        absl::StrFormat("training.deterministic is true, and step %d has up to %d documents of up "
                        "to %d tokens in one micro-batch: their attention wants %s of scratch "
                        "memory, which is not left on the GPU; set training.deterministic to "
                        "false, or lower data.sequence_length or training.micro_batch_sequences",
                        largest.step, largest.documents.documents, largest.documents.length,
                        FormatBytes(static_cast<double>(wanted))));
  }
}

void TrainingRun::Resume() {
  const std::string& from = config_.resume_from;
  const absl::Status intact = VerifyCheckpoint(from, rank_, static_cast<int>(config_.ranks));
  ThrowUnlessOk(intact, ResumeCode(intact));
  const absl::StatusOr<CheckpointMetadata> loaded =
      LoadTrainingState(from, context_->decoder->parameters(), optimizer_->state());
  ThrowUnlessOk(loaded.status(), ResumeCode(loaded.status()));
  const auto refuse = [&](const char* what, const std::string& there, const std::string& here) {
    if (there == here) return;
    throw TrainerError(
        ExitCode::kConfig,
        absl::StrFormat("%s was written with %s %s, this run has %s", from, what, there, here));
  };
  // A run goes on only where it was: the same data in the same order.
  refuse("training data", loaded->train_fingerprint, train_data_->fingerprint());
  refuse("seed", absl::StrCat(loaded->seed), absl::StrCat(config_.training.seed));
  refuse("sequences taken so far", absl::StrCat(loaded->next_sequence),
         absl::StrCat(loaded->progress.step * config_.training.global_batch_sequences));
  progress_ = loaded->progress;
}

bool TrainingRun::Evaluate() {
  Phase("evaluating");
  const std::optional<EvaluationResult> result =
      EvaluateAll(*context_->decoder, *context_->communicators().world, *eval_data_,
                  config_.training.micro_batch_sequences,
                  [this](double done) { return BetweenEvaluationBatches(done); });
  if (!result) return false;
  if (progress_.step == 0) progress_.initial_eval_loss = result->loss;
  if (rank_ == 0) reporter_.Lifecycle(EvalLine(progress_.step, result->loss, result->targets));
  Phase("training",
        static_cast<double>(progress_.step) / static_cast<double>(config_.training.total_steps));
  return true;
}

bool TrainingRun::BetweenEvaluationBatches(double done) {
  const Requests agreed = AgreeOnRequests(*context_->communicators().world, control_.requests());
  const auto now = std::chrono::steady_clock::now();
  if (now - progress_told_ >= kProgressInterval) {
    reporter_.Metric(PhaseLine("evaluating", done));
    progress_told_ = now;
  }
  // Before the first step there is nothing to save: a checkpoint waits for that step's end.
  const bool save = agreed.checkpoint && progress_.step > 0;
  if (save) {
    SaveStep();
    Phase("evaluating", done);
  }
  control_.Done({.checkpoint = save, .stop = agreed.stop});
  return !agreed.stop;
}

void TrainingRun::ReportStep(const StepResult& result) {
  if (result.tokens_per_expert.defined()) {
    expert_load_ = SummarizeExpertLoad(result.tokens_per_expert, result.router_entropy);
    if (rank_ == 0) {
      reporter_.Metric(
          ExpertLoadLine(MakeExpertLoadReport(progress_.step, shape_, result.tokens_per_expert)));
    }
  }
  StepReport report;
  report.step = progress_.step;
  report.loss = result.loss;
  report.aux_loss = result.aux_loss;
  report.learning_rate = result.learning_rate;
  report.grad_norm = result.grad_norm;
  report.tokens = result.tokens;
  report.targets = result.targets;
  report.step_seconds = result.seconds;
  report.phase_seconds = result.phase_seconds;
  report.peak_memory_bytes =
      config_.device == "cpu" ? PeakMemoryBytes() : GpuBackend()->Memory().used_bytes;
  report.skipped = result.skipped;
  report.expert_load_max_over_mean = expert_load_.max_over_mean;
  report.dead_experts = expert_load_.dead_experts;
  report.router_entropy_ratio = expert_load_.router_entropy_ratio;
  report.arena_high_water_bytes = context_->decoder->arena_use().high_water;
  reporter_.Metric(StepLine(report));
}

void TrainingRun::CountSkip(const StepResult& result) {
  if (!result.skipped) {
    progress_.consecutive_skips = 0;
    evidence_.clear();
    return;
  }
  ++progress_.skipped_steps;
  ++progress_.consecutive_skips;
  const std::vector<std::string>& names = result.non_finite_parameters;
  const size_t shown = std::min<size_t>(names.size(), 4);
  evidence_.push_back(absl::StrFormat(
      "step %d: loss %g, auxiliary loss %g, gradient norm %g, %d tensors with non-finite "
      "gradients%s%s",
      progress_.step, result.loss, result.aux_loss, result.grad_norm, names.size(),
      shown > 0 ? ": " : "", absl::StrJoin(names.begin(), names.begin() + shown, ", ")));
  if (rank_ == 0) log::Warning("step.skipped", {{"evidence", evidence_.back()}});
  if (progress_.consecutive_skips < kMaxConsecutiveSkips) return;
  throw TrainerError(
      ExitCode::kNonFinite,
      absl::StrFormat(
          "%d steps in a row were not finite (%s); lower training.learning_rate or look "
          "at the data of these steps",
          progress_.consecutive_skips, absl::StrJoin(evidence_, "; ")));
}

void TrainingRun::Save(const std::string& stage, const std::string& final_path, bool final) {
  Phase("saving");
  SaveRequest request;
  request.stage = stage;
  request.source = config_.model;
  CheckpointMetadata& metadata = request.metadata;
  metadata.job = config_.job;
  metadata.job_uid = config_.job_uid;
  metadata.epoch = config_.epoch;
  metadata.final = final;
  metadata.precision = config_.precision;
  metadata.optimizer = config_.optimizer;
  metadata.plan_json = config_json_;
  metadata.progress = progress_;
  metadata.next_sequence = progress_.step * config_.training.global_batch_sequences;
  metadata.seed = config_.training.seed;
  metadata.train_fingerprint = train_data_->fingerprint();
  const int64_t bytes = ValueOrThrow(
      SaveCheckpoint(request, context_->decoder->parameters(), optimizer_->CurrentState()),
      ExitCode::kOutput);
  reporter_.Lifecycle(
      CheckpointShardLine({rank_, progress_.step, stage, final_path, final, bytes}));
  if (!final) {
    Phase("training",
          static_cast<double>(progress_.step) / static_cast<double>(config_.training.total_steps));
  }
}

void TrainingRun::SaveStep() {
  if (saved_step_ == progress_.step) return;
  Save(config_.StagePath(progress_.step), config_.CheckpointPath(progress_.step), false);
  saved_step_ = progress_.step;
}

RunEnd TrainingRun::Stopped() const {
  const std::string reason = control_.stop_reason();
  return {ExitCode::kStopped,
          absl::StrFormat("stopped after step %d%s%s", progress_.step, reason.empty() ? "" : ": ",
                          reason),
          progress_.step};
}

}  // namespace

RunEnd RunTraining(const TrainerConfig& config, const std::string& config_json, int rank,
                   RankChannels& channels) {
  int64_t step = 0;
  RunEnd end = Guarded([&] {
    TrainingRun run(config, config_json, rank, channels);
    const absl::Cleanup keep_step = [&] { step = run.step(); };
    return run.Run();
  });
  end.step = step;
  return end;
}

}  // namespace switchyard::trainer
