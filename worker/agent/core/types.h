// What goes into the agent's step function and what comes out of it.
//
// Plain values, so that the same core runs under the real host (worker/agent/host) and in a
// simulation by a hand-turned clock. Nothing here knows of pipes, pids' life or gRPC.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::agent {

// One launch of a job.
struct AttemptKey {
  std::string job_uid;
  int64_t epoch = 0;
  auto operator<=>(const AttemptKey&) const = default;
};

// The ranks of an attempt and its data preparation run one after the other, each in a process group
// of its own.
enum class Phase { kPreparation, kRanks };
struct GroupKey {
  AttemptKey attempt;
  Phase phase = Phase::kRanks;
  auto operator<=>(const GroupKey&) const = default;
};

inline constexpr int kPreparationRank = -1;
struct ProcessKey {
  AttemptKey attempt;
  int rank = kPreparationRank;
  GroupKey group() const {
    return {attempt, rank == kPreparationRank ? Phase::kPreparation : Phase::kRanks};
  }
  auto operator<=>(const ProcessKey&) const = default;
};

// ---- inputs
// -------------------------------------------------------------------------------------------

struct Tick {};          // time has passed
struct StreamOpened {};  // a stream to the coordinator stands; nothing was said on it yet
struct StreamClosed {};
struct FromCoordinator {
  v1::ConnectResponse message;
};
struct ProcessStarted {
  ProcessKey key;
  int64_t pid = 0;
};
struct ProcessStartFailed {
  ProcessKey key;
  std::string error;
};
struct TrainerSaid {
  ProcessKey key;
  trainer::v1::TrainerLine line;
};
// A line of data preparation: progress while it runs, at the end the result or the error. Only the
// fields that the line set are used.
struct PreparationSaid {
  AttemptKey key;
  v1::DataStatus data;
};
// The process itself is gone (its descendants may not be). Everything it said was delivered before.
struct ProcessExited {
  ProcessKey key;
  int exit_code = 0;  // of exit(), when signal is 0
  int signal = 0;
  std::vector<std::string> log_tail;
};
// After every process of the group has exited: no descendant of it is left either.
struct GroupGone {
  GroupKey key;
};
struct ProbeDone {
  v1::ProbeResult result;
};
struct PublishDone {
  v1::CheckpointPublished result;
};
// The agent itself shall end.
struct ShutdownRequested {};

using Input = std::variant<Tick, StreamOpened, StreamClosed, FromCoordinator, ProcessStarted,
                           ProcessStartFailed, TrainerSaid, PreparationSaid, ProcessExited,
                           GroupGone, ProbeDone, PublishDone, ShutdownRequested>;

// ---- outputs, to be done in order
// -----------------------------------------------------------------------

struct Send {
  v1::ConnectRequest message;
};
// The session is of no use (silent or refused): end the stream; a new one is dialled as after any
// loss.
struct CloseStream {
  std::string reason;
};
// Answered by ProcessStarted or ProcessStartFailed.
struct StartRank {
  ProcessKey key;
  int slot = 0;
  std::string job;          // resource name
  std::string config_json;  // the same for every rank of the attempt
  std::string trace_id;
};
// Answered by ProcessStarted or ProcessStartFailed with rank kPreparationRank.
struct StartPreparation {
  AttemptKey key;
  v1::PrepareData request;
};
enum class StopSignal { kTerminate, kKill };
// To every process of the group; none left is fine.
struct SignalGroup {
  GroupKey key;
  StopSignal signal = StopSignal::kTerminate;
};
struct WriteLine {
  ProcessKey key;
  trainer::v1::AgentLine line;
};
// Must be durable before the outputs after it are done.
struct JournalResult {
  v1::AttemptStatus result;
};
// The coordinator has the result: drop it and what was kept for the attempt.
struct ForgetAttempt {
  AttemptKey key;
};
// Keep the coordinator's store id durably; read back by the next incarnation.
struct RememberStore {
  std::string store_id;
};
// Answered by ProbeDone.
struct Probe {
  v1::ProbePaths request;
};
// Answered by PublishDone.
struct Publish {
  v1::PublishCheckpoint request;
};
struct Remove {
  v1::RemoveCheckpoint request;
};
struct LogsStored {
  v1::LogAck ack;
};
// Something worth a line in the agent's log.
struct Note {
  bool warning = false;
  std::string event;  // "noun.verb"
  AttemptKey attempt;
  std::string text;
};
// After ShutdownRequested: nothing is left to stop.
struct ShutdownComplete {};

using Output = std::variant<Send, CloseStream, StartRank, StartPreparation, SignalGroup, WriteLine,
                            JournalResult, ForgetAttempt, RememberStore, Probe, Publish, Remove,
                            LogsStored, Note, ShutdownComplete>;
using Outputs = std::vector<Output>;

}  // namespace switchyard::agent
