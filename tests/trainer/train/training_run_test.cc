// Whole runs of switchyard-trainer, as a user or an agent starts them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "tests/trainer/support/multi_process.h"
#include "tests/trainer/support/prepared_data.h"
#include "worker/trainer/checkpoint/safetensors_tensor.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

struct Finished {
  int code = -1;
  std::string output;  // standard output and error
};

// A running switchyard-trainer; killed when it goes out of scope.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments, bool with_channels = false) {
    int out[2], report[2], control[2];
    EXPECT_EQ(pipe2(out, O_CLOEXEC) | pipe2(report, O_CLOEXEC) | pipe2(control, O_CLOEXEC), 0);
    const UniqueFd out_end = Above(out[1]), report_end = Above(report[1]),
                   control_end = Above(control[0]);
    out_ = Above(out[0]);
    report_ = Above(report[0]);
    control_ = Above(control[1]);
    const std::string program =
        std::string(getenv("SWITCHYARD_BINARY_DIR")) + "/bin/switchyard-trainer";
    std::vector<char*> argv = {const_cast<char*>(program.c_str())};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out_end.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, out_end.get(), 2);
    if (with_channels) {
      posix_spawn_file_actions_adddup2(&actions, report_end.get(), 3);
      posix_spawn_file_actions_adddup2(&actions, control_end.get(), 4);
    }
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Program() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  // Reads output until it holds `text`; false when it ended before.
  bool ReadUntil(const std::string& text) {
    while (output_.find(text) == std::string::npos) {
      if (!ReadSome(out_, &output_)) return false;
    }
    return true;
  }
  // The next line on fd 3 that has member `name`; null at the end.
  json NextLine(const std::string& name) {
    while (true) {
      for (size_t end = lines_.find('\n'); end != std::string::npos; end = lines_.find('\n')) {
        const json line = json::parse(lines_.substr(0, end));
        lines_.erase(0, end + 1);
        if (line.contains(name)) return line[name];
      }
      if (!ReadSome(report_, &lines_)) return nullptr;
    }
  }
  void Say(const std::string& line) {
    const std::string text = line + "\n";
    EXPECT_EQ(::write(control_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void HangUp() { control_.Reset(); }
  void Kill(int signal) { kill(pid_, signal); }
  Finished Wait() {
    while (ReadSome(out_, &output_)) {
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), output_};
  }

 private:
  static UniqueFd Above(int fd) {
    UniqueFd low(fd);
    return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 10));
  }
  static bool ReadSome(const UniqueFd& fd, std::string* text) {
    pollfd ready = {fd.get(), POLLIN, 0};
    if (poll(&ready, 1, 100000) <= 0) {
      ADD_FAILURE() << "the trainer says nothing";
      return false;
    }
    char buffer[4096];
    const ssize_t n = ::read(fd.get(), buffer, sizeof(buffer));
    if (n > 0) text->append(buffer, static_cast<size_t>(n));
    return n > 0;
  }

  pid_t pid_ = 0;
  UniqueFd out_, report_, control_;
  std::string output_, lines_;
};

class TrainingRunTest : public CheckpointTest {
 protected:
  void SetUp() override {
    CheckpointTest::SetUp();
    CheckpointStyle style;
    style.dtype = at::kFloat;
    NamedTensors tensors = TinyTensors(style);
    for (auto& [name, tensor] : tensors) {
      if (tensor.dim() > 1) tensor.mul_(0.1);
    }
    WriteTinyCheckpoint(Path("model"), style, tensors);
    WritePreparedData(Path("train"), 32, 40, CountingSequences(50, 32, 40, 1));
    WritePreparedData(Path("eval"), 32, 40, CountingSequences(7, 32, 40, 2));
  }

  json Config(const std::string& output, int ranks, int ep, int micro_batch) const {
    return {{"job", "test"},
            {"job_uid", "uid-" + std::to_string(getpid())},
            {"epoch", 1},
            {"ranks", ranks},
            {"expert_parallel", ep},
            {"device", "cpu"},
            {"precision", "float32"},
            {"optimizer", "exact"},
            {"model", Path("model")},
            {"train_data", Path("train")},
            {"eval_data", Path("eval")},
            {"sequence_length", 32},
            {"threads", 1},
            {"training",
             {{"total_steps", 10},
              {"global_batch_sequences", 8},
              {"micro_batch_sequences", micro_batch},
              {"learning_rate", 0.01},
              {"beta1", 0.9},
              {"beta2", 0.95},
              {"eps", 1e-8},
              {"weight_decay", 0.01},
              {"warmup_steps", 2},
              {"schedule", "cosine"},
              {"max_grad_norm", 1.0},
              {"seed", 3},
              {"router_aux_loss_coef", 0.01}}},
            {"checkpoint", {{"output", Path(output)}, {"interval_steps", 4}}}};
  }
  std::vector<std::string> Arguments(const json& config, const std::string& name) const {
    const std::string path = Path(name + ".json");
    std::ofstream(path) << config.dump(2);
    return {"run", "--config", path};
  }
  Finished Run(const json& config, const std::string& name) const {
    return Program(Arguments(config, name)).Wait();
  }
  // Weights and optimizer state of the job's result, file by file.
  std::map<std::string, std::string> ResultBytes(const std::string& output) const {
    std::map<std::string, std::string> files;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(Path(output) + "/final")) {
      if (entry.path().extension() == ".safetensors") {
        files[std::filesystem::relative(entry.path(), Path(output))] =
            ReadBytes(entry.path().string());
      }
    }
    return files;
  }
  std::map<std::string, at::Tensor> ResultTensors(const std::string& output) const {
    const absl::StatusOr<NamedTensors> tensors =
        ReadTensors(Path(output) + "/final/model.safetensors");
    EXPECT_TRUE(tensors.ok()) << tensors.status();
    return {tensors->begin(), tensors->end()};
  }
};

double Norm(const at::Tensor& tensor) { return at::linalg_vector_norm(tensor).item<double>(); }

std::vector<double> Losses(const std::string& output) {
  std::vector<double> losses;
  for (size_t at = output.find("held-out loss "); at != std::string::npos;
       at = output.find("held-out loss ", at + 1)) {
    losses.push_back(std::stod(output.substr(at + 14)));
  }
  return losses;
}

TEST_F(TrainingRunTest, FourRanksLearnAndAnyOtherMeshEndsWithTheSameWeights) {
  // Equal tokens per accumulation index: W x B is always 4.
  const Finished run = Run(Config("w4", 4, 2, 1), "w4");
  ASSERT_EQ(run.code, 0) << run.output;
  const std::vector<double> losses = Losses(run.output);
  ASSERT_EQ(losses.size(), 2) << run.output;
  EXPECT_LT(losses[1], losses[0] - 0.1);
  EXPECT_THAT(run.output, HasSubstr("saved " + Path("w4") + "/checkpoints/step-4"));
  EXPECT_THAT(run.output, HasSubstr("saved " + Path("w4") + "/final"));
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    EXPECT_THAT(entry.path().string(),
                ::testing::Not(HasSubstr("uid-" + std::to_string(getpid()))));
  }

  const std::map<std::string, at::Tensor> expected = ResultTensors("w4");
  for (auto [name, ranks, ep] :
       {std::tuple{"w1", 1, 1}, {"w2", 2, 1}, {"w2e", 2, 2}, {"w4e", 4, 4}}) {
    const Finished other = Run(Config(name, ranks, ep, 4 / ranks), name);
    ASSERT_EQ(other.code, 0) << other.output;
    for (const auto& [tensor, value] : ResultTensors(name)) {
      EXPECT_LT(Norm(value - expected.at(tensor)), 1e-4 * Norm(expected.at(tensor)))
          << name << " " << tensor;
    }
  }
}

TEST_F(TrainingRunTest, AJobThatRecomputesEndsWithTheBytesOfOneThatDoesNot) {
  ASSERT_EQ(Run(Config("kept", 2, 2, 2), "kept").code, 0);
  json config = Config("again", 2, 2, 2);
  config["training"]["activation_memory"] = "recompute_layer";
  const Finished run = Run(config, "again");
  ASSERT_EQ(run.code, 0) << run.output;
  const auto kept = ResultBytes("kept");
  EXPECT_FALSE(kept.empty());
  EXPECT_TRUE(kept == ResultBytes("again"));
}

TEST_F(TrainingRunTest, KilledAndResumedEndsWithTheBytesOfAnUninterruptedRun) {
  for (const char* precision : {"float32", "bfloat16"}) {
    const std::string whole = std::string("whole-") + precision,
                      cut = std::string("cut-") + precision;
    json config = Config(whole, 4, 2, 1);
    config["precision"] = precision;
    const Finished run = Run(config, whole);
    ASSERT_EQ(run.code, 0) << run.output;

    config["checkpoint"]["output"] = Path(cut);
    {
      Program program(Arguments(config, cut));
      ASSERT_TRUE(program.ReadUntil("step 6/10") && program.ReadUntil("step-4\n"));
      program.Kill(SIGKILL);
      EXPECT_EQ(program.Wait().code, 128 + SIGKILL);
    }
    config["epoch"] = 2;
    config["resume_from"] = Path(cut) + "/checkpoints/step-4";
    const Finished resumed = Run(config, cut + "-2");
    ASSERT_EQ(resumed.code, 0) << resumed.output;
    EXPECT_THAT(resumed.output, HasSubstr("step 5/10"));
    EXPECT_THAT(resumed.output, ::testing::Not(HasSubstr("step 4/10")));
    EXPECT_EQ(Losses(run.output).back(), Losses(resumed.output).back());
    const auto expected = ResultBytes(whole), actual = ResultBytes(cut);
    ASSERT_EQ(expected.size(), actual.size());
    for (const auto& [file, bytes] : expected)
      EXPECT_TRUE(actual.at(file) == bytes) << precision << " " << file;
  }
}

TEST_F(TrainingRunTest, ThreeNonFiniteStepsInARowStopTheJobWithTheEvidence) {
  CheckpointStyle style;
  style.dtype = at::kFloat;
  NamedTensors tensors = TinyTensors(style);
  for (auto& [name, tensor] : tensors) {
    if (name == "model.layers.1.self_attn.q_norm.weight")
      tensor.fill_(std::numeric_limits<double>::quiet_NaN());
  }
  WriteTinyCheckpoint(Path("model"), style, tensors);
  json config = Config("nan", 2, 2, 1);
  config["eval_data"] = "";
  const Finished run = Run(config, "nan");
  EXPECT_EQ(run.code, 70) << run.output;
  EXPECT_THAT(run.output, HasSubstr("step 3/10"));
  EXPECT_THAT(run.output, ::testing::Not(HasSubstr("step 4/10")));
  EXPECT_THAT(run.output, HasSubstr("skipped"));
  EXPECT_THAT(run.output, HasSubstr("NON_FINITE: 3 steps in a row were not finite"));
  EXPECT_THAT(run.output, HasSubstr("model."));
}

TEST_F(TrainingRunTest, AnAgentsRequestsAreObeyedAtAStepBoundary) {
  json config = Config("agent", 1, 1, 2);
  config["training"]["total_steps"] = 100000;
  config["checkpoint"]["interval_steps"] = 0;
  std::vector<std::string> arguments = Arguments(config, "agent");
  arguments.insert(arguments.end(), {"--rank", "0"});
  Program program(arguments, /*with_channels=*/true);
  EXPECT_EQ(program.NextLine("phase")["name"], "loading");
  EXPECT_EQ(program.NextLine("ready")["resumed_from_step"], 0);
  EXPECT_GT(program.NextLine("eval")["loss"].get<double>(), 0);
  const json step = program.NextLine("step");
  EXPECT_EQ(step["step"], 1);
  EXPECT_GT(step["tokens"].get<int>(), 0);
  EXPECT_GT(step["peak_memory_bytes"].get<int64_t>(), 1 << 20);
  double in_phases = 0;
  for (const char* phase : {"data", "forward", "backward", "dispatch", "combine",
                            "reduce_gradients", "agree", "update"}) {
    ASSERT_TRUE(step["phase_seconds"].contains(phase)) << step;
    EXPECT_GT(step["phase_seconds"][phase].get<double>(), 0) << phase;
    in_phases += step["phase_seconds"][phase].get<double>();
  }
  EXPECT_EQ(step["phase_seconds"].size(), 8u) << step;
  EXPECT_LE(in_phases, step["step_seconds"].get<double>());
  EXPECT_GE(step["expert_load_max_over_mean"].get<double>(), 1.0);
  EXPECT_GT(step["router_entropy_ratio"].get<double>(), 0.0);
  program.Say(R"({"checkpoint_now": {}})");
  const json shard = program.NextLine("checkpoint_shard");
  EXPECT_FALSE(shard["final"].get<bool>());
  EXPECT_TRUE(
      std::filesystem::exists(shard["stage_path"].get<std::string>() + "/model.safetensors"));
  program.Say(R"({"checkpoint_now": {"then_stop": true}})");
  const json last = program.NextLine("checkpoint_shard");
  EXPECT_GT(last["step"].get<int>(), shard["step"].get<int>());
  const json exit = program.NextLine("exit");
  EXPECT_EQ(exit["code"], "STOPPED");
  EXPECT_EQ(exit["step"], last["step"]);
  EXPECT_EQ(program.Wait().code, 0);
}

TEST_F(TrainingRunTest, RequestsDuringAnEvaluationAreNotLeftUntilItsEnd) {
  // Far more to evaluate than this test has time for.
  WritePreparedData(Path("long"), 32, 40, CountingSequences(60000, 32, 40, 2));
  json config = Config("pause", 1, 1, 1);
  config["checkpoint"]["interval_steps"] = 0;
  const auto start = [&](const char* name, const json& run) {
    std::vector<std::string> arguments = Arguments(run, name);
    arguments.insert(arguments.end(), {"--rank", "0"});
    return std::make_unique<Program>(arguments, /*with_channels=*/true);
  };
  const auto wait_for_evaluation = [](Program& program) {
    while (true) {
      const json phase = program.NextLine("phase");
      ASSERT_FALSE(phase.is_null());
      if (phase["name"] == "evaluating" && phase["progress"].get<double>() > 0) return;
    }
  };
  config["eval_data"] = Path("long");
  std::unique_ptr<Program> program = start("before", config);
  wait_for_evaluation(*program);
  program->Say(R"({"checkpoint_now": {"then_stop": true}})");
  EXPECT_EQ(program->NextLine("exit")["code"], "STOPPED");
  EXPECT_EQ(program->Wait().code, 0);
  EXPECT_FALSE(std::filesystem::exists(Path("pause/checkpoints")));

  // Goes on after a step, so that the first evaluation is one with something to save.
  config["eval_data"] = Path("eval");
  config["training"]["total_steps"] = 100000;
  program = start("step", config);
  ASSERT_FALSE(program->NextLine("step").is_null());
  program->Say(R"({"checkpoint_now": {"then_stop": true}})");
  const json saved = program->NextLine("checkpoint_shard");
  EXPECT_EQ(program->NextLine("exit")["code"], "STOPPED");
  program->Wait();
  std::filesystem::rename(saved["stage_path"].get<std::string>(),
                          saved["final_path"].get<std::string>());

  config["resume_from"] = saved["final_path"];
  config["epoch"] = 2;
  config["eval_data"] = Path("long");
  config["training"]["total_steps"] = saved["step"];
  program = start("last", config);
  wait_for_evaluation(*program);
  program->Say(R"({"checkpoint_now": {}})");
  const json shard = program->NextLine("checkpoint_shard");
  EXPECT_FALSE(shard["final"].get<bool>());
  EXPECT_EQ(shard["step"], saved["step"]);
  wait_for_evaluation(*program);
  program->Say(R"({"stop": {"reason": "enough"}})");
  const json exit = program->NextLine("exit");
  EXPECT_EQ(exit["code"], "STOPPED");
  EXPECT_THAT(exit["message"].get<std::string>(), HasSubstr("enough"));
  EXPECT_EQ(program->Wait().code, 0);
}

TEST_F(TrainingRunTest, ARankWhoseAgentIsGoneEndsAtOnce) {
  json config = Config("gone", 1, 1, 2);
  config["training"]["total_steps"] = 100000;
  std::vector<std::string> arguments = Arguments(config, "gone");
  arguments.insert(arguments.end(), {"--rank", "0"});
  Program program(arguments, /*with_channels=*/true);
  ASSERT_FALSE(program.NextLine("step").is_null());
  program.HangUp();
  EXPECT_EQ(program.Wait().code, 86);
}

TEST_F(TrainingRunTest, TwoRunsNeverWriteTheSameFilesHoweverTheirOutputIsSpelt) {
  json config = Config("shared", 1, 1, 2);
  config["training"]["total_steps"] = 100000;
  config["checkpoint"]["interval_steps"] = 0;
  Program first(Arguments(config, "first"));
  ASSERT_TRUE(first.ReadUntil("step 1/"));
  config["training"]["total_steps"] = 1;
  std::filesystem::create_directory_symlink(Path("shared"), Path("link"));
  for (const char* spelling : {"shared/", "/shared", "./shared", "shared/.", "link"}) {
    config["checkpoint"]["output"] = Path(spelling);
    const Finished second = Run(config, "second");
    EXPECT_EQ(second.code, 68) << spelling;
    EXPECT_THAT(second.output, HasSubstr("is being written by another run"));
    // An agent's rank of another job: beside the first, in files of its own.
    json job = config;
    job["job_uid"] = "other";
    std::vector<std::string> arguments = Arguments(job, "job");
    arguments.insert(arguments.end(), {"--rank", "0"});
    const json shard = Program(arguments, /*with_channels=*/true).NextLine("checkpoint_shard");
    EXPECT_EQ(shard["stage_path"], Path(spelling) + "/.stage-other-e1-final");
  }
}

TEST_F(TrainingRunTest, MistakesAreNamedBeforeAnythingIsTrained) {
  const auto fails = [&](const char* name, int code, const std::string& message,
                         const auto& change) {
    json config = Config(name, 2, 2, 1);
    change(config);
    const Finished run = Run(config, name);
    EXPECT_EQ(run.code, code) << run.output;
    EXPECT_THAT(run.output, HasSubstr(message));
  };
  fails("field", 64, "training.beta1 is 2; must be", [](json& c) { c["training"]["beta1"] = 2; });
  fails("mesh", 64, "expert_parallel (3) must divide",
        [](json& c) { c["expert_parallel"] = c["ranks"] = 3; });
  setenv("CUDA_VISIBLE_DEVICES", "", 1);  // also where there is a GPU
  fails("device", 83, "device is \"cuda\", but", [](json& c) { c["device"] = "cuda"; });
  fails("model", 66, "config.json", [&](json& c) { c["model"] = Path("nothing"); });
  fails("data", 65, "sequence_length", [](json& c) { c["sequence_length"] = 16; });
  fails("resume", 67, "nothing", [&](json& c) { c["resume_from"] = Path("nothing"); });
}

}  // namespace
}  // namespace switchyard::trainer
