// The golden cases of tools/make_golden.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/model/model_shape.h"
#include "worker/trainer/data/row_batch.h"
#include "worker/trainer/model/decoder.h"

namespace switchyard::trainer {

struct Golden {
  std::string directory;
  ModelShape shape;
  std::map<std::string, at::Tensor> tensors;

  RowBatch Rows() const;
  Batch FullBatch() const { return MakeBatch(Rows(), shape.vocab_size); }
};

std::vector<std::string> GoldenCases();
Golden LoadGolden(const std::string& name);

// ||a - b|| / ||b|| in float64; ||a|| when b is zero.
double RelativeError(const at::Tensor& a, const at::Tensor& b);

// A decoder on one rank with all it borrows.
struct SingleRank {
  SingleRank(const ModelShape& shape, Precision precision, int64_t tokens, int64_t accumulation = 1,
             std::optional<ActivationMemory> activations = {});
  MeshCommunicators communicators;
  std::unique_ptr<TokenDispatcher> dispatcher;
  std::unique_ptr<Decoder> decoder;
};

}  // namespace switchyard::trainer
