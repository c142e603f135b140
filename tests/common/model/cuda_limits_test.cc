#include "common/model/cuda_limits.h"

#include <gmock/gmock.h>

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ModelShape Qwen3() {
  return ParseModelConfig(R"({"model_type": "qwen3_moe", "head_dim": 128, "num_hidden_layers": 4})")
      .value();
}

TEST(CudaLimitsTest, TakeQwen3AndWhatIsJustWithinThem) {
  EXPECT_THAT(CudaShapeProblems(Qwen3()), IsEmpty());
  ModelShape shape = Qwen3();
  shape.hidden_size = 8192;
  shape.num_heads = 72;
  shape.num_kv_heads = 8;
  shape.num_experts = 512;
  shape.experts_per_token = 32;
  shape.moe_intermediate_size = 16;
  EXPECT_THAT(CudaShapeProblems(shape), IsEmpty());
}

TEST(CudaLimitsTest, EachViolationHasKeyValueAndFix) {
  ModelShape shape = Qwen3();
  shape.vocab_size = 151669;
  shape.hidden_size = 8196;
  shape.num_heads = 80;
  shape.num_experts = 1024;
  shape.experts_per_token = 33;
  shape.moe_intermediate_size = 776;
  EXPECT_THAT(
      CudaShapeProblems(shape),
      ElementsAre(
          "config.json: vocab_size is 151669; on a GPU it must be a multiple of 8: resize the "
          "embeddings to 151672 rows, or train on \"cpu\"",
          HasSubstr("hidden_size is 8196; on a GPU it must be a multiple of 8"),
          HasSubstr("hidden_size is 8196; on a GPU it must be at most 8192"),
          HasSubstr("num_attention_heads is 80; on a GPU it must be at most 76 with "
                    "num_key_value_heads 4 and head_dim 128"),
          HasSubstr("moe_intermediate_size is 776; on a GPU it must be a multiple of 16"),
          HasSubstr("num_experts is 1024; on a GPU it must be at most 512"),
          HasSubstr("num_experts_per_tok is 33; on a GPU it must be at most 32")));

  shape = Qwen3();
  shape.head_dim = 96;
  EXPECT_THAT(CudaShapeProblems(shape),
              ElementsAre(HasSubstr("head_dim is 96; on a GPU it must be 32, 64 or 128")));
}

TEST(CudaLimitsTest, OnlyLayersThatThereAreCount) {
  ModelShape shape = Qwen3();
  shape.intermediate_size = 12;
  EXPECT_THAT(CudaShapeProblems(shape), IsEmpty());
  shape.num_experts = 1024;
  shape.is_moe_layer.assign(4, false);
  EXPECT_THAT(CudaShapeProblems(shape), ElementsAre(HasSubstr("intermediate_size is 12; on a GPU "
                                                              "it must be a multiple of 8")));
}

TEST(CudaLimitsTest, AMicroBatchHasNoMoreTokensThanOffsetsReach) {
  EXPECT_EQ(MaxCudaTokens(Qwen3()), 262'143);
  ModelShape all_keys = Qwen3();
  all_keys.num_kv_heads = all_keys.num_heads = 16;
  EXPECT_EQ(MaxCudaTokens(all_keys), INT32_MAX / (3 * 16 * 128));
  EXPECT_EQ(CudaTokensProblem(Qwen3(), 7, 32'768), "");
  EXPECT_EQ(CudaTokensProblem(Qwen3(), 8, 32'768),
            "data.sequence_length is 32768 and training.micro_batch_sequences 8; on a GPU a "
            "micro-batch of this model has at most 262143 tokens; lower "
            "training.micro_batch_sequences");
  EXPECT_THAT(CudaTokensProblem(Qwen3(), 1, 262'144), HasSubstr("lower data.sequence_length"));
}

}  // namespace
}  // namespace switchyard
