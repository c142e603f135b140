#include "coordinator/cli/watch.h"

#include <unistd.h>

#include <csignal>
#include <memory>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/live_block.h"
#include "coordinator/cli/watch_stream.h"
#include "coordinator/cli/watch_view.h"

namespace switchyard::coordinator {
namespace {

// Steps in a pipe are told at most so often; held-out losses and the last step always.
constexpr absl::Duration kStepLineInterval = absl::Seconds(2);

// Where the messages of a watch go.
class WatchSink {
 public:
  virtual ~WatchSink() = default;
  virtual void OnMessage(const v1::WatchJobsResponse& message) = 0;
  virtual void OnLost(const absl::Status& status) = 0;
  virtual void OnBack() = 0;
  virtual void OnEnd(const v1::Job& job) = 0;
};

class JsonSink final : public WatchSink {
 public:
  explicit JsonSink(CliIo& io) : io_(io) {}
  void OnMessage(const v1::WatchJobsResponse& message) override {
    io_.out << JsonLine(message) << std::flush;
  }
  void OnLost(const absl::Status&) override {}
  void OnBack() override {}
  void OnEnd(const v1::Job&) override {}

 private:
  CliIo& io_;
};

class LineSink final : public WatchSink {
 public:
  explicit LineSink(CliIo& io) : io_(io) {}

  void OnMessage(const v1::WatchJobsResponse& message) override {
    for (const v1::Event& event : message.events()) Print(EventLine(event, false));
    if (message.has_job()) {
      job_ = message.job();
      // Progress alone changes the job too; only what a reader would miss is a line.
      const std::string line = JobLine(job_);
      if (line != last_job_line_) Print(line);
      last_job_line_ = line;
    }
    if (message.has_step()) OnStep(message.step());
  }
  void OnLost(const absl::Status&) override {
    if (!lost_) Print("the coordinator is away; the job goes on, reconnecting");
    lost_ = true;
  }
  void OnBack() override {
    Print("the coordinator is back");
    lost_ = false;
  }
  void OnEnd(const v1::Job& job) override { io_.out << FinalSummary(job, false) << std::flush; }

 private:
  void OnStep(const v1::StepSample& step) {
    const absl::Time now = absl::Now();
    const bool last = step.step() == job_.progress().total_steps();
    if (!step.has_eval_loss() && !step.skipped() && !last &&
        now - last_step_line_ < kStepLineInterval)
      return;
    last_step_line_ = now;
    Print(StepLine(job_, step));
  }
  void Print(const std::string& line) { io_.out << line << "\n" << std::flush; }

  CliIo& io_;
  v1::Job job_;
  std::string last_job_line_;
  absl::Time last_step_line_ = absl::InfinitePast();
  bool lost_ = false;
};

// Redraws from a thread of its own, so that times go on while nothing arrives.
class BlockSink final : public WatchSink {
 public:
  BlockSink(CliIo& io, const std::vector<v1::StepSample>& history) : io_(io), block_(io.out) {
    model_.Seed(history);
    painter_ = std::jthread([this](std::stop_token stop) {
      while (!stop.stop_requested()) {
        {
          absl::MutexLock lock(&mutex_);
          Draw();
        }
        absl::SleepFor(absl::Milliseconds(200));
      }
    });
  }

  void OnMessage(const v1::WatchJobsResponse& message) override {
    absl::MutexLock lock(&mutex_);
    for (const v1::Event& event : message.events()) block_.PrintAbove(EventLine(event, io_.color));
    if (message.has_job()) model_.SetJob(message.job());
    if (message.has_step()) model_.AddStep(message.step());
  }
  void OnLost(const absl::Status&) override {
    absl::MutexLock lock(&mutex_);
    note_ = "the coordinator is away; the job goes on, reconnecting";
  }
  void OnBack() override {
    absl::MutexLock lock(&mutex_);
    note_.clear();
  }
  void OnEnd(const v1::Job& job) override {
    painter_ = {};  // stops and joins
    absl::MutexLock lock(&mutex_);
    block_.Erase();
    io_.out << FinalSummary(job, io_.color) << std::flush;
  }

 private:
  void Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (model_.job().name().empty() && note_.empty()) return;
    block_.Draw(WatchBlock(model_, {io_.width, io_.color, io_.unicode}, absl::Now(), note_));
  }

  CliIo& io_;
  absl::Mutex mutex_;
  LiveBlock block_ ABSL_GUARDED_BY(mutex_);
  WatchModel model_ ABSL_GUARDED_BY(mutex_);
  std::string note_ ABSL_GUARDED_BY(mutex_);
  std::jthread painter_;  // last: it ends before what it draws
};

std::unique_ptr<WatchSink> MakeSink(const ApiClient& client, CliContext& context,
                                    const std::string& name) {
  if (context.options.json) return std::make_unique<JsonSink>(context.io);
  if (!context.io.terminal) return std::make_unique<LineSink>(context.io);
  v1::QueryMetricsRequest request;
  request.set_name(name);
  request.set_max_samples(400);
  // The sparkline's past is a nicety: without it the watch starts with what comes.
  const auto history =
      client.Call(&v1::JobService::Stub::QueryMetrics, client.jobs(), request, absl::Seconds(5));
  std::vector<v1::StepSample> samples;
  if (history.ok()) samples.assign(history->samples().begin(), history->samples().end());
  return std::make_unique<BlockSink>(context.io, samples);
}

// Only async-signal-safe calls.
void OnInterrupt(int) {
  static constexpr char kText[] = "\nStopped watching; the job goes on.\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(130);
}

}  // namespace

absl::StatusOr<int> FollowJob(const ApiClient& client, CliContext& context,
                              const std::string& name) {
  if (context.io.terminal) std::signal(SIGINT, OnInterrupt);
  const std::unique_ptr<WatchSink> sink = MakeSink(client, context, name);
  int exit_code = kExitInternal;
  v1::Job job;
  WatchOptions options;
  options.name = name;
  options.first_retry_for = context.options.retry_for;
  WatchHandlers handlers;
  handlers.on_message = [&](const v1::WatchJobsResponse& message) {
    sink->OnMessage(message);
    if (message.update_case() == v1::WatchJobsResponse::kDeleted) {
      exit_code = kExitCancelled;
      job.set_state(v1::JOB_STATE_CANCELLED);
      job.mutable_reason()->set_message("the job was deleted");
      sink->OnEnd(job);
      return false;
    }
    if (!message.has_job()) return true;
    job = message.job();
    if (!job.terminal()) return true;
    exit_code = ExitCodeOf(job.state());
    sink->OnEnd(job);
    return false;
  };
  handlers.on_lost = [&](const absl::Status& status) { sink->OnLost(status); };
  handlers.on_back = [&] { sink->OnBack(); };
  SWITCHYARD_RETURN_IF_ERROR(WatchJob(client, options, handlers));
  return exit_code;
}

void AddWatchCommand(CLI::App& app, CommandBody& chosen) {
  auto job = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("watch", "Follow a job to its end; the exit code says how it ended");
  command->add_option("job", *job, "Job id or resource name")->required();
  command->callback([&chosen, job] {
    chosen = [job](CliContext& context) -> absl::StatusOr<int> {
      const ApiClient client(context.options.coordinator);
      return FollowJob(client, context, context.JobName(*job));
    };
  });
}

}  // namespace switchyard::coordinator
