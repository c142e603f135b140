#include "common/model/model_shape.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/model/config_reader.h"
#include "common/model/parameter_list.h"

namespace switchyard {
namespace {

// Limits far above any real model, low enough that no sum or product below overflows int64.
constexpr int64_t kMaxWidth = 1 << 17;
constexpr int64_t kMaxLayers = 1 << 11;
constexpr int64_t kMaxHeads = 1 << 12;
constexpr int64_t kMaxExperts = 1 << 13;
constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 31;
constexpr double kMaxParameters = 1e14;
constexpr size_t kMaxConfigBytes = 4 << 20;

// Rotary embedding: rope_theta stands at the top or, from Transformers 5 on, in rope_parameters;
// before that, scaling stood in rope_scaling.
double ReadRopeTheta(ConfigReader& reader, std::vector<std::string>& problems) {
  constexpr double kDefaultTheta = 10000;
  const bool at_top = reader.Has("rope_theta");
  double theta = reader.Number("rope_theta", kDefaultTheta, 1e-3, 1e15);
  bool known = at_top;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const nlohmann::json& value = reader.Raw(key);
    if (value.is_null()) continue;
    if (!value.is_object()) {
      reader.Violation(key, "must be an object");
      continue;
    }
    ConfigReader inner(value, absl::StrCat(key, "."), problems);
    for (const char* type : {"rope_type", "type"}) {
      if (inner.Text(type, "default") != "default") {
        inner.Violation(type, "is not supported: only \"default\" is");
      }
    }
    if (inner.Number("partial_rotary_factor", 1, 0, 1) != 1) {
      inner.Violation("partial_rotary_factor", "is not supported: only 1 is");
    }
    if (inner.Has("rope_theta")) {
      const double here = inner.Number("rope_theta", theta, 1e-3, 1e15);
      if (known && here != theta) {
        inner.Violation("rope_theta",
                        absl::StrFormat("contradicts another rope_theta (%g)", theta));
      }
      theta = here;
      known = true;
    }
    inner.RefuseOthers();
  }
  return theta;
}

// Keys whose every value but one would change the mathematics.
void RefuseOtherMathematics(ConfigReader& reader) {
  if (reader.Text("hidden_act", "silu") != "silu") {
    reader.Violation("hidden_act", "is not supported: only \"silu\" is");
  }
  for (const char* key :
       {"qkv_bias", "use_sliding_window", "is_encoder_decoder", "add_cross_attention"}) {
    if (reader.Boolean(key, false)) reader.Violation(key, "is not supported: only false is");
  }
  if (!reader.Boolean("use_qk_norm", true)) {
    reader.Violation("use_qk_norm", "is not supported: only true is");
  }
  for (const char* key : {"attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop"}) {
    if (reader.Number(key, 0, 0, 1) != 0) reader.Violation(key, "is not supported: only 0 is");
  }
  for (const char* key : {"shared_expert_intermediate_size", "chunk_size_feed_forward"}) {
    if (reader.Integer(key, 0, 0, INT64_MAX) != 0) {
      reader.Violation(key, "is not supported: only 0 is");
    }
  }
  if (reader.Number("partial_rotary_factor", 1, 0, 1) != 1) {
    reader.Violation("partial_rotary_factor", "is not supported: only 1 is");
  }
  if (const nlohmann::json& types = reader.Raw("layer_types"); !types.is_null()) {
    const bool full =
        types.is_array() && std::all_of(types.begin(), types.end(), [](const auto& t) {
          return t.is_string() && t.template get<std::string>() == "full_attention";
        });
    if (!full) reader.Violation("layer_types", "is not supported: only \"full_attention\" is");
  }
}

void IgnoreHarmless(ConfigReader& reader) {
  // sliding_window and max_window_layers act only with use_sliding_window, which is refused.
  reader.Ignore({"architectures",
                 "transformers_version",
                 "_name_or_path",
                 "name_or_path",
                 "_commit_hash",
                 "auto_map",
                 "use_cache",
                 "is_decoder",
                 "bos_token_id",
                 "eos_token_id",
                 "sep_token_id",
                 "decoder_start_token_id",
                 "output_router_logits",
                 "output_attentions",
                 "output_hidden_states",
                 "return_dict",
                 "sliding_window",
                 "max_window_layers",
                 "id2label",
                 "label2id",
                 "num_labels",
                 "problem_type",
                 "finetuning_task",
                 "task_specific_params",
                 "tokenizer_class",
                 "prefix",
                 "torchscript",
                 "tf_legacy_loss",
                 "use_bfloat16",
                 "_attn_implementation",
                 "attn_implementation",
                 "_attn_implementation_autoset",
                 "experts_implementation",
                 "attn_kernel",
                 "pruned_heads",
                 "cross_attention_hidden_size",
                 "tie_encoder_decoder"});
  // Of generation.
  reader.Ignore({"max_length",
                 "min_length",
                 "do_sample",
                 "early_stopping",
                 "num_beams",
                 "temperature",
                 "top_k",
                 "top_p",
                 "typical_p",
                 "repetition_penalty",
                 "length_penalty",
                 "no_repeat_ngram_size",
                 "encoder_no_repeat_ngram_size",
                 "bad_words_ids",
                 "num_return_sequences",
                 "output_scores",
                 "return_dict_in_generate",
                 "forced_bos_token_id",
                 "forced_eos_token_id",
                 "remove_invalid_values",
                 "exponential_decay_length_penalty",
                 "suppress_tokens",
                 "begin_suppress_tokens",
                 "num_beam_groups",
                 "diversity_penalty"});
}

void ReadExperts(ConfigReader& reader, ModelShape& shape) {
  // -1: absent or refused, so that there is nothing to contradict.
  const int64_t experts = reader.Integer("num_experts", -1, 0, kMaxExperts);
  shape.num_experts =
      reader.Integer("num_local_experts", experts >= 0 ? experts : 128, 0, kMaxExperts);
  if (experts >= 0 && shape.num_experts != experts) {
    reader.Violation("num_local_experts", absl::StrFormat("contradicts num_experts (%d)", experts));
  }
  shape.moe_intermediate_size = reader.Integer("moe_intermediate_size", 768, 1, kMaxWidth);
  shape.experts_per_token = reader.Integer("num_experts_per_tok", 8, 1, kMaxExperts);
  shape.norm_topk_prob = reader.Boolean("norm_topk_prob", false);
  shape.router_aux_loss_coef = reader.Number("router_aux_loss_coef", 0.001, 0, 1e6);
  const int64_t sparse_step = reader.Integer("decoder_sparse_step", 1, 1, kMaxLayers);
  const std::vector<int64_t> dense = reader.Integers("mlp_only_layers");
  for (int64_t i = 0; i < shape.num_layers; ++i) {
    const bool listed = std::find(dense.begin(), dense.end(), i) != dense.end();
    shape.is_moe_layer.push_back(!listed && shape.num_experts > 0 && (i + 1) % sparse_step == 0);
  }
  if (shape.num_moe_layers() > 0 && shape.experts_per_token > shape.num_experts) {
    reader.Violation("num_experts_per_tok",
                     absl::StrFormat("must be at most num_experts (%d)", shape.num_experts));
  }
}

void ReadAttention(ConfigReader& reader, ModelShape& shape) {
  shape.num_heads = reader.Integer("num_attention_heads", 32, 1, kMaxHeads);
  shape.num_kv_heads = reader.Integer("num_key_value_heads", 4, 1, kMaxHeads);
  if (shape.num_heads % shape.num_kv_heads != 0) {
    reader.Violation("num_key_value_heads",
                     absl::StrFormat("must divide num_attention_heads (%d)", shape.num_heads));
  }
  shape.head_dim = reader.Integer("head_dim", shape.hidden_size / shape.num_heads, 1, 1 << 12);
  if (!reader.Has("head_dim") && shape.hidden_size % shape.num_heads != 0) {
    reader.Violation(
        "num_attention_heads",
        absl::StrFormat("must divide hidden_size (%d) when head_dim is absent", shape.hidden_size));
  }
  if (shape.head_dim % 2 != 0 || shape.head_dim == 0) {
    reader.Violation("head_dim", "must be even: rotary embedding turns pairs");
  }
  shape.attention_bias = reader.Boolean("attention_bias", false);
}

void ReadDtype(ConfigReader& reader, ModelShape& shape) {
  const std::string old_name = reader.Text("torch_dtype", "");
  shape.torch_dtype = reader.Text("dtype", old_name);
  for (const char* known : {"", "float32", "bfloat16", "float16"}) {
    if (shape.torch_dtype == known) return;
  }
  reader.Violation(reader.Has("dtype") ? "dtype" : "torch_dtype",
                   "is not supported: float32, bfloat16 and float16 are");
}

ModelShape ReadQwen3Moe(ConfigReader& reader, std::vector<std::string>& problems) {
  ModelShape shape;
  shape.model_type = "qwen3_moe";
  shape.hidden_size = reader.Integer("hidden_size", 2048, 1, kMaxWidth);
  shape.num_layers = reader.Integer("num_hidden_layers", 24, 1, kMaxLayers);
  shape.vocab_size = reader.Integer("vocab_size", 151936, 1, kMaxVocabulary);
  shape.intermediate_size = reader.Integer("intermediate_size", 6144, 1, 1 << 20);
  shape.rms_norm_eps = reader.Number("rms_norm_eps", 1e-6, 0, 1);
  shape.max_position_embeddings =
      reader.Integer("max_position_embeddings", 32768, 1, kMaxPositions);
  shape.tie_word_embeddings = reader.Boolean("tie_word_embeddings", false);
  shape.initializer_range = reader.Number("initializer_range", 0.02, 0, 1e3);
  shape.pad_token_id = reader.Integer("pad_token_id", -1, 0, shape.vocab_size - 1);
  ReadAttention(reader, shape);
  ReadExperts(reader, shape);
  ReadDtype(reader, shape);
  shape.rope_theta = ReadRopeTheta(reader, problems);
  RefuseOtherMathematics(reader);
  IgnoreHarmless(reader);
  reader.RefuseOthers();
  return shape;
}

// Parameters in floating point, for shapes whose exact count might overflow.
double RoughParameters(const ModelShape& s) {
  const double layers = static_cast<double>(s.num_layers);
  const double hidden = static_cast<double>(s.hidden_size);
  const double experts = std::max<double>(1.0, static_cast<double>(s.num_experts));
  return 2.0 * static_cast<double>(s.vocab_size) * hidden +
         layers * hidden *
             (2.0 * static_cast<double>(s.num_heads + s.num_kv_heads) *
                  static_cast<double>(s.head_dim) +
              3.0 * static_cast<double>(s.intermediate_size) +
              experts * (1.0 + 3.0 * static_cast<double>(s.moe_intermediate_size)));
}

}  // namespace

absl::StatusOr<ModelShape> ParseModelConfig(const std::string& config_json) {
  if (config_json.size() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "config.json has %d bytes; at most %d are read", config_json.size(), kMaxConfigBytes));
  }
  const nlohmann::json config =
      nlohmann::json::parse(config_json, nullptr, /*allow_exceptions=*/false);
  if (config.is_discarded() || !config.is_object()) {
    return absl::InvalidArgumentError("config.json is not a JSON object");
  }
  std::vector<std::string> problems;
  ConfigReader reader(config, "", problems);
  const std::string model_type = reader.Text("model_type", "");
  if (problems.empty() && model_type != "qwen3_moe") {
    reader.Violation("model_type", "is not supported: qwen3_moe is");
  }
  ModelShape shape;
  if (problems.empty()) shape = ReadQwen3Moe(reader, problems);
  if (problems.empty() && RoughParameters(shape) > kMaxParameters) {
    problems.push_back(
        absl::StrFormat("the sizes make a model of %g parameters; at most %g are supported",
                        RoughParameters(shape), kMaxParameters));
  }
  if (!problems.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: ", absl::StrJoin(problems, "; ")));
  }
  return shape;
}

absl::StatusOr<ModelShape> ReadModelConfig(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return absl::NotFoundError(absl::StrFormat("cannot read %s: %s", path, std::strerror(errno)));
  }
  // One byte more than is allowed, so that ParseModelConfig refuses a larger file.
  std::string text(kMaxConfigBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) {
    return absl::NotFoundError(absl::StrFormat("cannot read %s: %s", path, std::strerror(errno)));
  }
  text.resize(static_cast<size_t>(in.gcount()));
  absl::StatusOr<ModelShape> shape = ParseModelConfig(text);
  if (shape.ok()) return shape;
  return absl::Status(shape.status().code(),
                      absl::StrCat(model_dir, "/", shape.status().message()));
}

int64_t ModelShape::num_moe_layers() const {
  return std::count(is_moe_layer.begin(), is_moe_layer.end(), true);
}

int64_t ModelShape::NumParameters() const {
  int64_t total = 0;
  for (const ParameterSpec& p : ListParameters(*this, num_experts)) total += p.numel();
  return total;
}

int64_t ModelShape::NumExpertParameters() const {
  return num_moe_layers() * num_experts * 3 * moe_intermediate_size * hidden_size;
}

int64_t ModelShape::NumActiveParameters() const {
  return NumParameters() - num_moe_layers() * (num_experts - experts_per_token) * 3 *
                               moe_intermediate_size * hidden_size;
}

double ModelShape::TrainingFlopsPerToken(int64_t sequence_length) const {
  double matrices = static_cast<double>(hidden_size) * static_cast<double>(vocab_size);  // the head
  for (const ParameterSpec& p : ListParameters(*this, experts_per_token)) {
    if (p.layer < 0 || p.shape.size() < 2) continue;  // lookups and vectors multiply nothing
    matrices += static_cast<double>(p.numel());
  }
  return 6 * matrices + 6 * static_cast<double>(num_layers) * static_cast<double>(sequence_length) *
                            static_cast<double>(num_heads * head_dim);
}

}  // namespace switchyard
