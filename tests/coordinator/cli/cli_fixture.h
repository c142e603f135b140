// Runs the program inside the test against a fake coordinator, in a directory of its own.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "coordinator/cli/program.h"
#include "tests/coordinator/cli/fake_coordinator.h"

namespace switchyard::coordinator {

class CliTest : public ::testing::Test {
 protected:
  CliTest() {
    char pattern[] = "/tmp/switchyard-cli-XXXXXX";
    directory = mkdtemp(pattern);
    server.jobs.job = DemoJob();
  }
  ~CliTest() override { std::filesystem::remove_all(directory); }

  static v1::Job DemoJob() {
    v1::Job job;
    job.set_name("projects/default/jobs/demo");
    job.set_uid("u1");
    job.set_state(v1::JOB_STATE_RUNNING);
    job.set_phase(v1::JOB_PHASE_TRAINING);
    job.set_epoch(2);
    job.mutable_create_time()->set_seconds(1700000000);
    job.mutable_spec()->set_model("/models/m");
    job.mutable_spec()->mutable_checkpoint()->set_output("/out/demo");
    auto& plan = *job.mutable_plan();
    plan.set_feasible(true);
    plan.set_ranks(4);
    plan.set_expert_parallel(2);
    plan.set_expert_data_parallel(2);
    plan.set_device("cpu");
    plan.set_total_steps(400);
    plan.set_tokens_per_second(1310);
    plan.set_memory_bytes_per_rank(700 << 20);
    auto& progress = *job.mutable_progress();
    progress.set_step(100);
    progress.set_total_steps(400);
    progress.set_loss(3.25);
    progress.set_initial_eval_loss(5.5);
    progress.set_eval_loss(3.5);
    progress.set_tokens_per_second(1204);
    progress.set_peak_memory_bytes(612 << 20);
    progress.mutable_eta()->set_seconds(72);
    return job;
  }

  static v1::Job EndedJob(v1::JobState state) {
    v1::Job job = DemoJob();
    job.set_state(state);
    job.set_terminal(true);
    job.set_phase(v1::JOB_PHASE_UNSPECIFIED);
    job.mutable_progress()->set_step(400);
    job.mutable_progress()->set_eval_loss(2.25);
    if (state == v1::JOB_STATE_SUCCEEDED) job.set_output_model("/out/demo/final");
    if (state == v1::JOB_STATE_FAILED) {
      job.mutable_reason()->set_code("RANK_EXITED");
      job.mutable_reason()->set_message("rank 1 ended with exit code 3");
      job.mutable_reason()->add_evidence("the last line of its log");
    }
    return job;
  }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = directory + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  // Exit code; output in `out` and `err`.
  int Run(std::vector<std::string> arguments, bool terminal = false) {
    std::ostringstream out_stream;
    std::ostringstream err_stream;
    CliIo io{.out = out_stream, .err = err_stream, .terminal = terminal, .color = terminal};
    arguments.insert(arguments.begin(), {"--coordinator", server.address()});
    const int code = RunCli(arguments, io);
    out = out_stream.str();
    err = err_stream.str();
    return code;
  }

  FakeCoordinator server;
  std::string directory;
  std::string out;
  std::string err;
};

}  // namespace switchyard::coordinator
