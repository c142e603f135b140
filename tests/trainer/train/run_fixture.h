// Whole runs of the program switchyard-trainer: the program itself, and a small job for it.
#pragma once

#include <ATen/core/Tensor.h>
#include <sys/types.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"

namespace switchyard::trainer {

struct Finished {
  int code = -1;
  std::string output;  // standard output and error
};

// A running switchyard-trainer; killed when it goes out of scope.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments, bool with_channels = false);
  ~Program();

  // Reads output until it holds `text`; false when it ended before.
  bool ReadUntil(const std::string& text);
  // The next line on fd 3 that has member `name`; null at the end.
  nlohmann::json NextLine(const std::string& name);
  void Say(const std::string& line);
  void HangUp() { control_.Reset(); }
  void Kill(int signal);
  Finished Wait();

 private:
  pid_t pid_ = 0;
  UniqueFd out_, report_, control_;
  std::string output_, lines_;
};

class TrainingRunTest : public CheckpointTest {
 protected:
  // A model and data of counting sequences, under Path().
  void SetUp() override;

  // Ten steps with a checkpoint after every fourth.
  nlohmann::json Config(const std::string& output, int ranks, int ep, int micro_batch) const;
  std::vector<std::string> Arguments(const nlohmann::json& config, const std::string& name) const;
  Finished Run(const nlohmann::json& config, const std::string& name) const {
    return Program(Arguments(config, name)).Wait();
  }
  // Weights and optimizer state of the job's result, file by file.
  std::map<std::string, std::string> ResultBytes(const std::string& output) const;
  std::map<std::string, at::Tensor> ResultTensors(const std::string& output) const;
};

}  // namespace switchyard::trainer
