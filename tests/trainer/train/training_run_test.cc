// Whole runs of switchyard-trainer, as a user or an agent starts them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "tests/trainer/support/prepared_data.h"
#include "tests/trainer/train/run_fixture.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

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

TEST_F(TrainingRunTest, AnOutputThatCannotTakeTheResultIsRefusedBeforeAnythingIsTrained) {
  json config = Config("output", 2, 2, 1);
  const auto fails = [&](const std::string& output, const std::string& message) {
    config["checkpoint"]["output"] = output;
    const Finished run = Run(config, "output");
    EXPECT_EQ(run.code, 68) << run.output;
    EXPECT_THAT(run.output, HasSubstr(message));
    EXPECT_THAT(run.output, ::testing::Not(HasSubstr("held-out loss")));  // before step 1
  };
  fails("/proc/switchyard", "cannot create directory /proc/switchyard");
  fails("/proc/sys", "cannot open /proc/sys/.run.lock");

  ASSERT_EQ(Run(Config("full", 2, 2, 1), "full").code, 0);
  fails(Path("full"), Path("full") + "/final already holds a checkpoint of this job");
  std::filesystem::remove_all(Path("full/final"));
  fails(Path("full"), "step-4 already holds a checkpoint of this job");
  // Nothing is in the way of what follows the newest of them.
  config["resume_from"] = Path("full/checkpoints/step-8");
  config["epoch"] = 2;
  EXPECT_EQ(Run(config, "resumed").code, 0);
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
  const auto on_gpu = [&](json& c) {
    c["device"] = "cuda";
    c["precision"] = "bfloat16";
  };
  fails("shape", 64, "head_dim is 8; on a GPU it must be 32, 64 or 128", on_gpu);
  std::filesystem::create_directories(Path("wide"));
  std::ofstream(Path("wide/config.json")) << R"({"model_type": "qwen3_moe", "vocab_size": 40})";
  fails("device", 83, "device is \"cuda\", but", [&](json& c) {
    on_gpu(c);
    c["model"] = Path("wide");
  });
  fails("model", 66, "config.json", [&](json& c) { c["model"] = Path("nothing"); });
  fails("data", 65, "sequence_length", [](json& c) { c["sequence_length"] = 16; });
  fails("resume", 67, "nothing", [&](json& c) { c["resume_from"] = Path("nothing"); });
}

}  // namespace
}  // namespace switchyard::trainer
