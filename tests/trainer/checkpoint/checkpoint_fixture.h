// Small random checkpoints in every layout, and all ranks of a mesh in one process.
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/model/model_shape.h"
#include "worker/trainer/checkpoint/safetensors_tensor.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

struct CheckpointStyle {
  bool fused = false;
  bool tied = false;
  bool head_though_tied = false;
  int files = 1;
  at::ScalarType dtype = at::kBFloat16;
};

// Two decoder layers, the first dense, 4 experts.
ModelShape TinyShape(bool tied);
// All tensors of a checkpoint of TinyShape in the style, random, by name.
NamedTensors TinyTensors(const CheckpointStyle& style);
// Writes config.json, a tokenizer file and the tensors, dealt to style.files files.
void WriteTinyCheckpoint(const std::string& directory, const CheckpointStyle& style,
                         const NamedTensors& tensors);

// One rank: registry with bound values and optimizer state.
struct Rank {
  Rank(const ModelShape& shape, int world, int ep, int rank, at::ScalarType dtype,
       bool compact = false);
  ParameterRegistry registry;
  OptimizerState state;
};

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  std::string dir_;
};

std::string ReadBytes(const std::string& path);

}  // namespace switchyard::trainer
