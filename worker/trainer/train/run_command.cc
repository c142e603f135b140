#include "worker/trainer/train/run_command.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "common/checkpoint_publish.h"
#include "common/durable_file.h"
#include "common/file_lock.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/trace.h"
#include "common/unique_fd.h"
#include "worker/trainer/comm/mesh_groups.h"
#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/local_ranks.h"
#include "worker/trainer/train/rank_channels.h"
#include "worker/trainer/train/rank_context.h"
#include "worker/trainer/train/trainer_config.h"
#include "worker/trainer/train/training_run.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = 16 << 20;

// One rank: lines go to the agent, or to the process that started all ranks.
int RunRank(const RunOptions& options) {
  DieWithParent();
  if (const auto config = ReadTrainerConfig(options.config); config.ok())
    BecomeProgramFor(config->device);
  log::SetProcessFields({{"program", "trainer"}, {"rank", options.rank}});
  std::string problem;
  if (!log::ConfigureFromEnvironment(&problem))
    log::Warning("log.misconfigured", {{"problem", problem}});
  const char* traceparent = std::getenv(kTraceparentVariable);
  if (const auto trace_id = TraceIdOf(traceparent == nullptr ? "" : traceparent))
    log::SetProcessFields({{"trace_id", *trace_id}});
  RankChannels channels(/*inherited=*/true);
  const RunEnd end = Guarded([&]() -> RunEnd {
    absl::StatusOr<TrainerConfig> config = ReadTrainerConfig(options.config);
    if (!config.ok()) throw TrainerError(ExitCode::kConfig, std::string(config.status().message()));
    log::SetProcessFields({{"job", config->job}, {"epoch", config->epoch}});
    if (options.ranks > 0) config->ranks = options.ranks;
    if (options.rank >= config->ranks) {
      throw TrainerError(ExitCode::kConfig, absl::StrFormat("--rank is %d, but there are %d ranks",
                                                            options.rank, config->ranks));
    }
    SetThreads(config->threads, config->ranks);
    const std::string text = ReadSmallFile(options.config, kMaxConfigBytes).value_or("");
    return RunTraining(*config, text, options.rank, channels);
  });
  return SayExit(channels, end);
}

// What an agent and a coordinator would do with the lines: show them, publish complete checkpoints.
class Conductor {
 public:
  explicit Conductor(const TrainerConfig& config) : config_(config) {}

  void Hear(int rank, const std::string& text) {
    const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (document.contains("checkpoint_shard")) {
      Publish(document["checkpoint_shard"]);
    } else if (rank == 0 && document.contains("step")) {
      ShowStep(document["step"]);
    } else if (rank == 0 && document.contains("eval")) {
      std::printf("held-out loss %s after step %s\n", document["eval"]["loss"].dump().c_str(),
                  document["eval"]["step"].dump().c_str());
    }
    std::fflush(stdout);
  }
  const absl::Status& status() const { return status_; }

 private:
  void ShowStep(const json& step) const {
    const double seconds = step["step_seconds"].get<double>();
    const auto tokens = step["tokens"].get<double>();
    std::printf("step %s/%d  loss %s  grad norm %s  lr %s  %.0f tokens/s%s\n",
                step["step"].dump().c_str(), static_cast<int>(config_.training.total_steps),
                step["loss"].dump().c_str(), step["grad_norm"].dump().c_str(),
                step["learning_rate"].dump().c_str(), seconds > 0 ? tokens / seconds : 0.0,
                step["skipped"].get<bool>() ? "  skipped" : "");
  }

  void Publish(const json& shard) {
    const auto stage = shard["stage_path"].get<std::string>();
    if (++shards_[stage] < config_.ranks) return;
    const auto final_path = shard["final_path"].get<std::string>();
    const absl::Status published = PublishCheckpoint(
        stage, final_path, {config_.job_uid, shard["step"].get<int64_t>(), config_.epoch});
    if (published.ok()) {
      std::printf("saved %s\n", final_path.c_str());
    } else {
      std::fprintf(stderr, "%s\n", std::string(published.message()).c_str());
      status_.Update(published);
    }
  }

  const TrainerConfig& config_;
  std::map<std::string, int64_t> shards_;  // durable ones of each stage
  absl::Status status_;
};

// Every name that this run will publish a checkpoint under must be free before it trains for it.
absl::Status CheckOutput(const TrainerConfig& config) {
  const int64_t last = config.training.total_steps;
  const int64_t interval = config.checkpoint.interval_steps;
  SWITCHYARD_RETURN_IF_ERROR(CheckVacant(config.FinalPath(), {config.job_uid, last, config.epoch}));
  if (interval == 0) return absl::OkStatus();
  const auto resumed = ReadCheckpointIdentity(config.resume_from);
  const int64_t done = resumed.ok() ? std::max<int64_t>(resumed->step, 0) : 0;
  for (int64_t step = (done / interval + 1) * interval; step < last; step += interval) {
    SWITCHYARD_RETURN_IF_ERROR(
        CheckVacant(config.CheckpointPath(step), {config.job_uid, step, config.epoch}));
  }
  return absl::OkStatus();
}

// Runs started by hand often share job_uid and epoch, and with them the names of what they write:
// one at a time.
absl::StatusOr<UniqueFd> LockOutput(const std::string& output) {
  SWITCHYARD_RETURN_IF_ERROR(MakeDirectories(output));
  absl::StatusOr<UniqueFd> lock = TryLockFile(output + "/.run.lock", 0644);
  if (absl::IsFailedPrecondition(lock.status())) {
    return absl::FailedPreconditionError(
        absl::StrFormat("checkpoint.output \"%s\" is being written by another run; wait for it or "
                        "choose another directory",
                        output));
  }
  // A file system that knows no locks is no reason not to train.
  if (absl::IsUnimplemented(lock.status())) return UniqueFd();
  return lock;
}

int RunAllRanks(const RunOptions& options) {
  absl::StatusOr<TrainerConfig> config = ReadTrainerConfig(options.config);
  if (!config.ok()) {
    std::fprintf(stderr, "%s\n", std::string(config.status().message()).c_str());
    return ProcessExitCode(ExitCode::kConfig);
  }
  if (options.ranks > 0) config->ranks = options.ranks;
  const absl::StatusOr<UniqueFd> lock = LockOutput(config->checkpoint.output);
  const absl::Status output = lock.ok() ? CheckOutput(*config) : lock.status();
  if (!output.ok()) {
    std::fprintf(stderr, "%s\n", std::string(output.message()).c_str());
    return ProcessExitCode(ExitCode::kOutput);
  }
  Conductor conductor(*config);
  LocalRanksOptions local;
  local.ranks = static_cast<int>(config->ranks);
  local.arguments = {"run", "--config", options.config, "--ranks", std::to_string(config->ranks)};
  local.on_line = [&](int rank, const std::string& line) { conductor.Hear(rank, line); };
  const int code = RunLocalRanks(local);
  if (code != 0) RemoveSegments(config->job_uid, config->epoch);
  if (code == 0 && !conductor.status().ok()) return ProcessExitCode(ExitCode::kOutput);
  return code;
}

}  // namespace

int RunCommand(const RunOptions& options) {
  return options.rank >= 0 ? RunRank(options) : RunAllRanks(options);
}

}  // namespace switchyard::trainer
