#include "common/model/model_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// As published with Qwen3-30B-A3B.
json Qwen3Config() {
  return {{"architectures", {"Qwen3MoeForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"bos_token_id", 151643},
          {"decoder_sparse_step", 1},
          {"eos_token_id", 151645},
          {"head_dim", 128},
          {"hidden_act", "silu"},
          {"hidden_size", 2048},
          {"initializer_range", 0.02},
          {"intermediate_size", 6144},
          {"max_position_embeddings", 40960},
          {"max_window_layers", 48},
          {"mlp_only_layers", json::array()},
          {"model_type", "qwen3_moe"},
          {"moe_intermediate_size", 768},
          {"norm_topk_prob", true},
          {"num_attention_heads", 32},
          {"num_experts", 128},
          {"num_experts_per_tok", 8},
          {"num_hidden_layers", 48},
          {"num_key_value_heads", 4},
          {"output_router_logits", false},
          {"rms_norm_eps", 1e-06},
          {"rope_scaling", nullptr},
          {"rope_theta", 1000000.0},
          {"router_aux_loss_coef", 0.001},
          {"sliding_window", nullptr},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"transformers_version", "4.51.0"},
          {"use_cache", true},
          {"use_sliding_window", false},
          {"vocab_size", 151936}};
}

std::string Refusal(json changes) {
  json config = Qwen3Config();
  config.update(changes);
  const absl::StatusOr<ModelShape> shape = ParseModelConfig(config.dump());
  return shape.ok() ? "accepted" : std::string(shape.status().message());
}

ModelShape Accepted(json changes) {
  json config = Qwen3Config();
  config.update(changes);
  return ParseModelConfig(config.dump()).value();
}

TEST(ModelShapeTest, CountsOfQwen3AreThePublishedOnes) {
  const ModelShape shape = Accepted(json::object());
  EXPECT_EQ(shape.NumParameters(), 30532122624);
  EXPECT_EQ(shape.NumExpertParameters(), 28991029248);
  EXPECT_EQ(shape.NumActiveParameters(), 30532122624 - 28991029248 / 128 * 120);
  EXPECT_EQ(shape.num_moe_layers(), 48);
  EXPECT_EQ(shape.rope_theta, 1e6);
  EXPECT_EQ(shape.torch_dtype, "bfloat16");
  EXPECT_EQ(shape.pad_token_id, -1);
  // Head and everything in layers, without embedding and norms, and half of a causal square per
  // layer.
  const double matrices = 151936.0 * 2048 + 48.0 * (2048.0 * 128 * (32 + 4 + 4 + 32) +
                                                    2048.0 * 128 + 8 * 3 * 768.0 * 2048);
  EXPECT_DOUBLE_EQ(shape.TrainingFlopsPerToken(4096), 6 * matrices + 6.0 * 48 * 4096 * 32 * 128);
}

TEST(ModelShapeTest, TiedHeadIsCountedOnce) {
  EXPECT_EQ(Accepted({{"tie_word_embeddings", true}}).NumParameters(), 30532122624 - 151936 * 2048);
}

TEST(ModelShapeTest, AttentionBiasesAreCountedAndCostNoMatrixFlops) {
  const ModelShape without = Accepted(json::object()), with = Accepted({{"attention_bias", true}});
  EXPECT_FALSE(without.attention_bias);
  EXPECT_TRUE(with.attention_bias);
  EXPECT_EQ(with.NumParameters() - without.NumParameters(), 48 * ((32 + 4 + 4) * 128 + 2048));
  EXPECT_EQ(with.TrainingFlopsPerToken(4096), without.TrainingFlopsPerToken(4096));
}

TEST(ModelShapeTest, RopeThetaMayStandInRopeParameters) {
  json config = Qwen3Config();
  config.erase("rope_theta");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(ParseModelConfig(config.dump()).value().rope_theta, 5e5);
}

TEST(ModelShapeTest, SparseStepAndListedLayersMakeDenseLayers) {
  const ModelShape shape =
      Accepted({{"num_hidden_layers", 6}, {"decoder_sparse_step", 2}, {"mlp_only_layers", {3}}});
  EXPECT_THAT(shape.is_moe_layer, ElementsAre(false, true, false, false, false, true));
}

TEST(ModelShapeTest, AbsentKeysHaveTheDefaultsOfTransformers) {
  const ModelShape shape = ParseModelConfig(R"({"model_type": "qwen3_moe"})").value();
  EXPECT_EQ(shape.head_dim, 64);
  EXPECT_EQ(shape.num_experts, 128);
  EXPECT_FALSE(shape.norm_topk_prob);
  EXPECT_EQ(shape.rope_theta, 10000);
}

TEST(ModelShapeTest, WhatChangesTheMathematicsIsRefusedByName) {
  EXPECT_THAT(Refusal({{"model_type", "mixtral"}}),
              HasSubstr("model_type (\"mixtral\") is not supported"));
  EXPECT_THAT(
      Refusal({{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}}),
      AllOf(HasSubstr("rope_scaling.type (\"yarn\")"), HasSubstr("rope_scaling.factor (4.0)")));
  EXPECT_THAT(
      Refusal({{"rope_parameters", {{"rope_theta", 1e4}, {"rope_type", "default"}}}}),
      HasSubstr("rope_parameters.rope_theta (10000.0) contradicts another rope_theta (1e+06)"));
  EXPECT_THAT(Refusal({{"use_sliding_window", true}}), HasSubstr("use_sliding_window (true)"));
  EXPECT_THAT(Refusal({{"qkv_bias", true}}), HasSubstr("qkv_bias (true)"));
  EXPECT_THAT(Refusal({{"attention_bias", 1}}), HasSubstr("attention_bias (1)"));
  EXPECT_THAT(Refusal({{"hidden_act", "gelu"}}), HasSubstr("hidden_act (\"gelu\")"));
  EXPECT_THAT(Refusal({{"attention_dropout", 0.1}}), HasSubstr("attention_dropout (0.1)"));
  EXPECT_THAT(Refusal({{"shared_expert_intermediate_size", 512}}), HasSubstr("only 0 is"));
  EXPECT_THAT(Refusal({{"quantization_config", {{"quant_method", "fp8"}}}}),
              HasSubstr("quantization_config"));
  EXPECT_THAT(Refusal({{"logit_scale", 0.5}}), HasSubstr("logit_scale (0.5) is not supported"));
  EXPECT_EQ(Refusal({{"logit_scale", nullptr}}), "accepted");
}

TEST(ModelShapeTest, AllViolationsAreNamedAtOnce) {
  EXPECT_THAT(Refusal({{"qkv_bias", true}, {"num_key_value_heads", 5}, {"head_dim", 7}}),
              AllOf(HasSubstr("qkv_bias"), HasSubstr("num_key_value_heads (5) must divide"),
                    HasSubstr("head_dim (7) must be even")));
}

TEST(ModelShapeTest, HostileNumbersAreRefusedWithoutOverflow) {
  EXPECT_THAT(Refusal({{"hidden_size", -1}}),
              HasSubstr("hidden_size (-1) must be an integer from 1"));
  EXPECT_THAT(Refusal({{"vocab_size", UINT64_MAX}}), HasSubstr("vocab_size"));
  EXPECT_THAT(Refusal({{"num_hidden_layers", 1.5}}), HasSubstr("num_hidden_layers (1.5)"));
  EXPECT_THAT(Refusal({{"num_attention_heads", 0}}), HasSubstr("num_attention_heads (0)"));
  EXPECT_THAT(Refusal({{"decoder_sparse_step", 0}}), HasSubstr("decoder_sparse_step (0)"));
  EXPECT_THAT(Refusal({{"num_experts_per_tok", 129}}),
              HasSubstr("must be at most num_experts (128)"));
  EXPECT_THAT(Refusal({{"num_local_experts", 64}}), HasSubstr("contradicts num_experts (128)"));
  // A number that was refused contradicts nothing.
  EXPECT_THAT(Refusal({{"num_experts", 1000000000000}, {"num_local_experts", 8}}),
              AllOf(HasSubstr("num_experts (1000000000000) must be an integer from 0"),
                    Not(HasSubstr("contradicts"))));
  EXPECT_THAT(Refusal({{"pad_token_id", 151936}}), HasSubstr("pad_token_id (151936)"));
  EXPECT_THAT(Refusal({{"mlp_only_layers", {"a"}}}), HasSubstr("list of integers"));
  EXPECT_THAT(Refusal({{"num_experts", 8192},
                       {"hidden_size", 131072},
                       {"moe_intermediate_size", 131072},
                       {"num_hidden_layers", 2048}}),
              HasSubstr("parameters"));
}

TEST(ModelShapeTest, TextThatIsNoObjectIsRefused) {
  EXPECT_FALSE(ParseModelConfig("").ok());
  EXPECT_FALSE(ParseModelConfig("[1]").ok());
  EXPECT_FALSE(ParseModelConfig("{\"model_type\": ").ok());
  EXPECT_FALSE(ParseModelConfig(std::string(5 << 20, ' ')).ok());
  EXPECT_EQ(ReadModelConfig("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace switchyard
