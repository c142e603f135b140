#include "tests/trainer/model/golden.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "common/check.h"
#include "worker/trainer/checkpoint/safetensors_tensor.h"
#include "worker/trainer/comm/single_communicator.h"

namespace switchyard::trainer {
namespace {

std::filesystem::path GoldenRoot() {
  const char* source = std::getenv("SWITCHYARD_SOURCE_DIR");
  SWITCHYARD_CHECK(source != nullptr, "run through ctest, or set SWITCHYARD_SOURCE_DIR");
  return std::filesystem::path(source) / "tests" / "golden";
}

}  // namespace

RowBatch Golden::Rows() const {
  return {tensors.at("input_ids"), tensors.at("labels"), tensors.at("position_ids"),
          tensors.at("valid").to(at::kBool)};
}

std::vector<std::string> GoldenCases() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenRoot())) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Golden LoadGolden(const std::string& name) {
  Golden golden;
  golden.directory = GoldenRoot() / name;
  golden.shape = ReadModelConfig(golden.directory).value();
  const NamedTensors tensors = ReadTensors(golden.directory + "/golden.safetensors").value();
  golden.tensors.insert(tensors.begin(), tensors.end());
  return golden;
}

double RelativeError(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor exact = b.to(at::kDouble);
  const double error = a.to(at::kDouble).sub(exact).norm().item<double>();
  const double norm = exact.norm().item<double>();
  return norm == 0 ? error : error / norm;
}

SingleRank::SingleRank(const ModelShape& shape, Precision precision, int64_t tokens,
                       int64_t accumulation, std::optional<ActivationMemory> activations)
    : communicators(MakeSingleMeshCommunicators()),
      dispatcher(MakeLocalDispatcher(shape.num_experts, shape.experts_per_token)) {
  at::set_num_threads(1);  // on a busy machine waiting threads cost more than these small models
  DecoderOptions options{shape, Mesh::Create(1, 1, static_cast<int>(shape.num_experts)).value()};
  options.communicators = &communicators;
  options.dispatcher = dispatcher.get();
  options.precision = precision;
  options.max_sequence_length = tokens;
  options.gradient_accumulation = accumulation;
  options.activations = activations;
  decoder = Decoder::Create(options);
}

}  // namespace switchyard::trainer
