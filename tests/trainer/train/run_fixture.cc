#include "tests/trainer/train/run_fixture.h"

#include <ATen/TensorOperators.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/trainer/support/prepared_data.h"
#include "worker/trainer/checkpoint/safetensors_tensor.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

UniqueFd Above(int fd) {
  UniqueFd low(fd);
  return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 10));
}
bool ReadSome(const UniqueFd& fd, std::string* text) {
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

}  // namespace

Program::Program(std::vector<std::string> arguments, bool with_channels) {
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

Program::~Program() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

bool Program::ReadUntil(const std::string& text) {
  while (output_.find(text) == std::string::npos) {
    if (!ReadSome(out_, &output_)) return false;
  }
  return true;
}

json Program::NextLine(const std::string& name) {
  while (true) {
    for (size_t end = lines_.find('\n'); end != std::string::npos; end = lines_.find('\n')) {
      const json line = json::parse(lines_.substr(0, end));
      lines_.erase(0, end + 1);
      if (line.contains(name)) return line[name];
    }
    if (!ReadSome(report_, &lines_)) return nullptr;
  }
}

void Program::Say(const std::string& line) {
  const std::string text = line + "\n";
  EXPECT_EQ(::write(control_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

void Program::Kill(int signal) { kill(pid_, signal); }

Finished Program::Wait() {
  while (ReadSome(out_, &output_)) {
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = 0;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), output_};
}

void TrainingRunTest::SetUp() {
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

json TrainingRunTest::Config(const std::string& output, int ranks, int ep, int micro_batch) const {
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

std::vector<std::string> TrainingRunTest::Arguments(const json& config,
                                                    const std::string& name) const {
  const std::string path = Path(name + ".json");
  std::ofstream(path) << config.dump(2);
  return {"run", "--config", path};
}

std::map<std::string, std::string> TrainingRunTest::ResultBytes(const std::string& output) const {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(Path(output) + "/final")) {
    if (entry.path().extension() == ".safetensors") {
      files[std::filesystem::relative(entry.path(), Path(output))] =
          ReadBytes(entry.path().string());
    }
  }
  return files;
}

std::map<std::string, at::Tensor> TrainingRunTest::ResultTensors(const std::string& output) const {
  const absl::StatusOr<NamedTensors> tensors =
      ReadTensors(Path(output) + "/final/model.safetensors");
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  return {tensors->begin(), tensors->end()};
}

}  // namespace switchyard::trainer
