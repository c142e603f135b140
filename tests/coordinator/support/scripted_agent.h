// An agent over a real stream whose trainers are a script: they load, step, save and end as the
// test says.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "switchyard/agent/v1/agent.grpc.pb.h"

namespace switchyard::coordinator {

struct AgentScript {
  int slots = 2;
  int64_t total_steps = 5;
  int64_t save_interval = 2;     // 0: only at the end
  int64_t hold_before_step = 0;  // steps stop before this one until Release; 0: never
  bool hold_publishing = false;  // renames no checkpoint until Release and the coordinator's repeat
  int fail_in_attempt = 0;       // rank 0 is KILLED after step 1 of this attempt
  std::string exit_code = "KILLED";
  std::vector<std::string> probe_problems = {};
  std::string data_error = {};  // of the user's data
  std::string allocation = {};  // "{job_uid}/{epoch}" that it was started for; leaves when told to
};

class ScriptedAgent {
 public:
  ScriptedAgent(std::string address, std::string node, AgentScript script);
  // Ends the stream; processes are gone with it.
  ~ScriptedAgent();

  void Release();
  // Dials another address, or the same again, with all it knows; as after a coordinator's restart.
  void Reconnect(const std::string& address);
  // As after SIGTERM: ends all ranks and says so.
  void Terminate();
  // Ranks that run now, over all attempts.
  int LiveRanks();
  // StartRanks received, by attempt.
  std::map<int64_t, int> Starts();
  std::set<std::string> removed();
  grpc::Status last_status();
  bool left();

 private:
  struct Attempt {
    agent::v1::AttemptStatus status;
    std::string output;
    int64_t resumed_from = 0;
    bool joined = false, save_then_stop = false, save_now = false;
    int64_t step = 0;
  };

  void Run();
  void Session();
  void Handle(const agent::v1::ConnectResponse& message);
  void StartRanks(const agent::v1::StartRanks& start);
  void Advance();
  void AdvanceAttempt(Attempt& attempt);
  void Save(Attempt& attempt, bool final);
  void End(Attempt& attempt, const std::string& code, bool by_agent);
  void Say(const agent::v1::ConnectRequest& message);
  void Report(const Attempt& attempt);

  const std::string node_;
  AgentScript script_;
  std::mutex mutex_;
  std::string address_;
  bool stopping_ = false;
  bool left_ = false;
  std::map<std::pair<std::string, int64_t>, Attempt> attempts_;
  std::map<int64_t, int> starts_;
  std::set<std::string> published_, removed_;
  grpc::Status last_status_;
  std::unique_ptr<grpc::ClientContext> context_;
  grpc::ClientReaderWriter<agent::v1::ConnectRequest, agent::v1::ConnectResponse>* stream_ =
      nullptr;
  std::thread thread_;
};

}  // namespace switchyard::coordinator
