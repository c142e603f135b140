#include "common/model/cuda_limits.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard {
namespace {

class Problems {
 public:
  void Add(const char* key, int64_t value, const std::string& must, const std::string& fix) {
    list_.push_back(
        absl::StrFormat("config.json: %s is %d; on a GPU it must be %s: %s, or train "
                        "on \"cpu\"",
                        key, value, must, fix));
  }
  void Multiple(const char* key, int64_t value, int64_t of, const std::string& fix) {
    if (value % of != 0) Add(key, value, absl::StrCat("a multiple of ", of), fix);
  }
  void AtMost(const char* key, int64_t value, int64_t most) {
    if (value > most) Add(key, value, absl::StrCat("at most ", most), "take a smaller model");
  }
  std::vector<std::string> Take() { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

}  // namespace

int64_t MaxCudaTokens(const ModelShape& shape) {
  const int64_t query = std::max<int64_t>(1, shape.num_heads * shape.head_dim);
  const int64_t qkv = query + 2 * shape.num_kv_heads * shape.head_dim;
  return std::min(((int64_t{1} << 32) - 1) / (4 * query), int64_t{INT32_MAX} / qkv);
}

std::string CudaTokensProblem(const ModelShape& shape, int64_t micro_batch_sequences,
                              int64_t sequence_length) {
  const int64_t most = MaxCudaTokens(shape);
  if (sequence_length <= most / micro_batch_sequences) return "";
  return absl::StrFormat(
      "data.sequence_length is %d and training.micro_batch_sequences %d; on a GPU a micro-batch of "
      "this model has at most %d tokens; lower %s",
      sequence_length, micro_batch_sequences, most,
      sequence_length <= most ? "training.micro_batch_sequences" : "data.sequence_length");
}

std::vector<std::string> CudaShapeProblems(const ModelShape& shape) {
  using Limits = CudaLimits;
  const std::string pad = "widen the weights with zeros";  // SwiGLU makes zeros of them
  const std::string other = "take a model that has it";
  Problems problems;
  const int64_t vocab = (shape.vocab_size + Limits::kVector - 1) / Limits::kVector;
  problems.Multiple("vocab_size", shape.vocab_size, Limits::kVector,
                    absl::StrCat("resize the embeddings to ", vocab * Limits::kVector, " rows"));
  problems.Multiple("hidden_size", shape.hidden_size, Limits::kVector, other);
  problems.AtMost("hidden_size", shape.hidden_size, Limits::kMaxHidden);
  const int64_t heads = shape.num_heads + shape.num_kv_heads;
  if (shape.head_dim != 32 && shape.head_dim != 64 && shape.head_dim != 128) {
    problems.Add("head_dim", shape.head_dim, "32, 64 or 128", other);
  } else if (heads * shape.head_dim > Limits::kMaxHeadsWidth) {
    problems.Add(
        "num_attention_heads", shape.num_heads,
        absl::StrCat("at most ", Limits::kMaxHeadsWidth / shape.head_dim - shape.num_kv_heads,
                     " with num_key_value_heads ", shape.num_kv_heads, " and head_dim ",
                     shape.head_dim),
        "take a smaller model");
  }
  if (shape.num_moe_layers() < shape.num_layers) {
    problems.Multiple("intermediate_size", shape.intermediate_size, Limits::kVector, pad);
  }
  if (shape.num_moe_layers() > 0) {
    problems.Multiple("moe_intermediate_size", shape.moe_intermediate_size,
                      Limits::kExpertWidthMultiple, pad);
    problems.AtMost("num_experts", shape.num_experts, Limits::kMaxExperts);
    problems.AtMost("num_experts_per_tok", shape.experts_per_token, Limits::kMaxExpertsPerToken);
  }
  return problems.Take();
}

}  // namespace switchyard
