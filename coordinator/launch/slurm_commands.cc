#include "coordinator/launch/slurm_commands.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/status_macros.h"
#include "coordinator/launch/cluster_config.h"
#include "coordinator/launch/run_command.h"

namespace switchyard::coordinator {
namespace {

using launch::v1::SlurmConfig;

constexpr std::chrono::seconds kPatience{60};
constexpr char kPrefix[] = "switchyard-";
// What sbatch says when the same call may succeed later.
constexpr const char* kTransient[] = {"Unable to contact slurm controller",
                                      "Socket timed out",
                                      "Connection refused",
                                      "Connection timed out",
                                      "Zero Bytes were transmitted",
                                      "temporarily unable to accept job",
                                      "slurmctld is in standby",
                                      "Protocol authentication error",
                                      "Munge"};

// A word as the shell reads it.
std::string Quoted(const std::string& word) {
  return absl::StrCat("'", absl::StrReplaceAll(word, {{"'", "'\\''"}}), "'");
}

absl::StatusOr<std::string> Run(const std::vector<std::string>& command,
                                const std::string& input = "") {
  CommandResult result;
  SWITCHYARD_ASSIGN_OR_RETURN(result, RunCommand(command, input, kPatience));
  if (result.exit_code == 0) return result.output;
  const std::string said(absl::StripAsciiWhitespace(result.errors));
  const bool transient =
      std::any_of(std::begin(kTransient), std::end(kTransient),
                  [&](const char* text) { return absl::StrContains(said, text); });
  const std::string message =
      absl::StrCat(command[0], " ended with ", result.exit_code, ": ", said);
  return transient ? absl::UnavailableError(message) : absl::InvalidArgumentError(message);
}

// Lines of "id|state|reason|nodes|name".
std::vector<SlurmJob> ParseJobs(const std::string& text) {
  std::vector<SlurmJob> jobs;
  for (const auto line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits('|', 4));
    if (fields.size() != 5) continue;
    SlurmJob& job = jobs.emplace_back();
    job.id = fields[0];
    job.state = fields[1].substr(0, fields[1].find(' '));  // "CANCELLED by 1000"
    job.reason = fields[2];
    job.nodes = fields[3];
    job.name = std::string(absl::StripAsciiWhitespace(fields[4]));
  }
  return jobs;
}

bool IsOneOf(const std::string& state, std::initializer_list<const char*> states) {
  return std::any_of(states.begin(), states.end(),
                     [&](const char* candidate) { return state == candidate; });
}

void CheckConfig(const SlurmConfig& config, std::vector<std::string>* problems) {
  const auto expect = [&](bool good, const char* field, const auto& value, const char* fix) {
    if (!good) problems->push_back(Fault(field, value, fix));
  };
  expect(absl::StrContains(config.coordinator(), ":"), "coordinator", config.coordinator(),
         "give HOST:PORT at which the cluster's nodes reach the coordinator");
  CheckNodeShape(config.nodes(), problems);
  for (const auto& [field, path] :
       {std::pair("agent", &config.agent()), std::pair("work_dir", &config.work_dir()),
        std::pair("log_dir", &config.log_dir())}) {
    expect(absl::StartsWith(*path, "/"), field, *path, "give an absolute path");
  }
  expect(config.poll_seconds() > 0, "poll_seconds", config.poll_seconds(), "at least 1");
}

}  // namespace

std::string SlurmJobName(const std::string& store_id, const AttemptKey& attempt) {
  return absl::StrFormat("%s%s-%s-e%d", kPrefix, store_id, attempt.first, attempt.second);
}

AttemptKey AttemptOfSlurmJob(const std::string& store_id, const std::string& name) {
  absl::string_view rest = name;
  AttemptKey attempt;
  const size_t epoch = name.rfind("-e");
  if (!absl::ConsumePrefix(&rest, absl::StrCat(kPrefix, store_id, "-")) ||
      epoch == std::string::npos || !absl::SimpleAtoi(name.substr(epoch + 2), &attempt.second)) {
    return {};
  }
  attempt.first = std::string(rest.substr(0, rest.rfind("-e")));
  return attempt;
}

AllocationStatus StatusOfSlurmJob(const SlurmJob& job) {
  const std::string who = absl::StrCat("Slurm job ", job.id);
  const std::string& state = job.state;
  if (IsOneOf(state, {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD",
                      "SPECIAL_EXIT"})) {
    return {AllocationState::kPending, "", absl::StrCat(who, " waits (", job.reason, ")")};
  }
  if (IsOneOf(state, {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING",
                      "STAGE_OUT", "RESIZING"})) {
    return {AllocationState::kRunning, "", absl::StrCat(who, " runs on ", job.nodes)};
  }
  AllocationStatus ended{AllocationState::kEnded, "ALLOCATION_FAILED", ""};
  const char* what = "ended though its agents were not told to leave";
  if (IsOneOf(state, {"TIMEOUT", "DEADLINE"})) {
    ended.code = "ALLOCATION_TIME_LIMIT";
    what = "reached its time limit: raise --time in sbatch_arguments to lose less work";
  } else if (state == "PREEMPTED") {
    ended.code = "PREEMPTED";
    what = "was preempted";
  } else if (IsOneOf(state, {"NODE_FAIL", "BOOT_FAIL"})) {
    ended.code = "NODE_LOST";
    what = "lost a node";
  } else if (IsOneOf(state, {"CANCELLED", "REVOKED"})) {
    ended.code = "ALLOCATION_CANCELLED";
    what = "was cancelled in Slurm; `switchyard retry` goes on from the newest checkpoint";
  } else if (state == "OUT_OF_MEMORY") {
    ended.code = "OUT_OF_MEMORY";
    what = "ran out of memory: ask for more by --mem in sbatch_arguments";
  } else if (state == "FAILED") {
    what = "failed: its output says why";
  }
  ended.detail = absl::StrCat(who, " ", what, " (", state, ")");
  return ended;
}

absl::StatusOr<SlurmConfig> ReadSlurmConfig(const std::string& path) {
  SlurmConfig config;
  std::vector<std::string> problems;
  SWITCHYARD_RETURN_IF_ERROR(ReadConfigFile("--slurm", path, &config, &problems));
  if (config.agent().empty()) config.set_agent("/usr/bin/switchyard-agent");
  if (config.work_dir().empty()) config.set_work_dir("/var/tmp/switchyard");
  if (config.log_dir().empty()) config.set_log_dir("/tmp");
  if (config.poll_seconds() == 0) config.set_poll_seconds(5);
  CheckConfig(config, &problems);
  SWITCHYARD_RETURN_IF_ERROR(ConfigError("--slurm", path, problems));
  return config;
}

absl::StatusOr<std::vector<SlurmJob>> ListSlurmJobs() {
  std::string text;
  SWITCHYARD_ASSIGN_OR_RETURN(
      text, Run({"squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%r|%N|%j"}));
  return ParseJobs(text);
}

absl::StatusOr<std::vector<SlurmJob>> FindSlurmAccounts(const std::string& name) {
  const auto text =
      Run({"sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-30days",
           absl::StrCat("--name=", name), "--format=JobID,State,Reason,NodeList,JobName"});
  if (text.ok()) return ParseJobs(*text);
  if (absl::IsNotFound(text.status()) ||
      absl::StrContains(text.status().message(), "accounting storage is disabled")) {
    return std::vector<SlurmJob>();
  }
  return text.status();
}

absl::StatusOr<std::string> SubmitSlurmJob(const SlurmConfig& config, const std::string& name,
                                           const Allocation& allocation) {
  const launch::v1::NodeShape& shape = config.nodes();
  const int slots = allocation.slots_per_node;
  std::vector<std::string> command = {
      "sbatch", "--parsable", absl::StrCat("--job-name=", name),
      absl::StrCat("--comment=", allocation.job, " attempt ", allocation.attempt.second),
      absl::StrCat("--nodes=", allocation.nodes), "--ntasks-per-node=1",
      absl::StrCat("--cpus-per-task=", std::max(1, shape.cpu_cores() * slots / shape.slots())),
      // The coordinator restarts attempts; Slurm must not. Two jobs of one name, should a lost
      // answer ever lead to them, never run at the same time.
      "--no-requeue", "--dependency=singleton",
      // Agents end their ranks in order before the time limit does it.
      "--signal=TERM@60", "--open-mode=append",
      absl::StrCat("--output=", config.log_dir(), "/", name, ".log"),
      // Nothing of the coordinator's environment but this.
      "--export=PATH,HOME,USER,LANG"};
  if (shape.device() == "cuda") {
    command.push_back(absl::StrCat("--gpus-per-node=", slots));
  } else {
    command.push_back(
        absl::StrFormat("--mem=%dM", static_cast<int64_t>(shape.slot_memory_gib() * slots * 1024)));
  }
  command.insert(command.end(), config.sbatch_arguments().begin(), config.sbatch_arguments().end());
  std::string text;
  SWITCHYARD_ASSIGN_OR_RETURN(text, Run(command, SlurmScript(config, name, allocation)));
  // "42" or "42;cluster"
  const std::string id(absl::StripAsciiWhitespace(text.substr(0, text.find(';'))));
  int64_t number = 0;
  if (!absl::SimpleAtoi(id, &number)) {
    return absl::UnknownError(absl::StrCat("sbatch answered \"", text, "\", which is no job id"));
  }
  return id;
}

absl::Status CancelSlurmJob(const std::string& id) { return Run({"scancel", id}).status(); }

std::string SlurmScript(const SlurmConfig& config, const std::string& name,
                        const Allocation& allocation) {
  std::vector<std::string> words = {config.agent(),
                                    "--coordinator",
                                    config.coordinator(),
                                    "--for-attempt",
                                    AllocationName(allocation.attempt),
                                    "--metrics",
                                    "off"};
  if (config.nodes().device() == "cpu") {
    words.insert(words.end(), {"--cpu-slots", absl::StrCat(allocation.slots_per_node)});
  }
  words.insert(words.end(), config.agent_arguments().begin(), config.agent_arguments().end());
  std::vector<std::string> quoted;
  for (const std::string& word : words) quoted.push_back(Quoted(word));
  // SLURM_PROCID numbers the nodes, one task each: the name by which the coordinator knows them.
  const std::string agent = absl::StrFormat(
      "exec %s --node %s-e%d-\"$SLURM_PROCID\" --work-dir %s-\"$SLURM_PROCID\"",
      absl::StrJoin(quoted, " "), allocation.attempt.first, allocation.attempt.second,
      Quoted(absl::StrCat(config.work_dir(), "/", name)));
  return absl::StrFormat(
      "#!/bin/sh\n"
      "# Switchyard: %s, attempt %d. One agent a node; the coordinator tells them to leave.\n"
      "exec srun --kill-on-bad-exit=0 --label sh -c %s\n",
      allocation.job, allocation.attempt.second, Quoted(agent));
}

}  // namespace switchyard::coordinator
