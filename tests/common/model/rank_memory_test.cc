#include "common/model/rank_memory.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "common/model/packed_attention.h"

namespace switchyard {
namespace {

RankMemoryInput Small() {
  RankMemoryInput in;
  in.model =
      ParseModelConfig(R"({"model_type": "qwen3_moe", "hidden_size": 256, "num_hidden_layers": 8,
      "vocab_size": 8192, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
      "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 128})")
          .value();
  in.micro_batch_sequences = 4;
  in.sequence_length = 256;
  return in;
}

RankMemory With(const std::function<void(RankMemoryInput&)>& change) {
  RankMemoryInput in = Small();
  change(in);
  return ComputeRankMemory(in);
}

TEST(RankMemoryTest, OneRankHoldsEveryParameterAndItsMoments) {
  const RankMemory memory = ComputeRankMemory(Small());
  const int64_t parameters = Small().model.NumParameters();
  EXPECT_EQ(memory.parameters, 4 * parameters);
  EXPECT_EQ(memory.optimizer, 8 * parameters);
  EXPECT_EQ(memory.windows, 0);
  EXPECT_EQ(memory.max_rows, 4 * 1024);
  EXPECT_EQ(memory.row_capacity, memory.max_rows);
  EXPECT_EQ(memory.slot_bytes.size(), 9u);
}

TEST(RankMemoryTest, SlotsAndBuffersAddUpToTheCategories) {
  const RankMemory memory = ComputeRankMemory(Small());
  const int64_t slots =
      std::accumulate(memory.slot_bytes.begin(), memory.slot_bytes.end(), int64_t{0});
  // Besides slots, saved activations count what dispatchers keep.
  EXPECT_LE(slots, memory.saved_activations + memory.gradients - memory.outer_gradient_bytes);
  EXPECT_GE(slots * 1.02,
            memory.saved_activations + memory.gradients - memory.outer_gradient_bytes);
  EXPECT_EQ(memory.Total(), memory.parameters + memory.gradients + memory.optimizer +
                                memory.saved_activations + memory.workspace + memory.windows +
                                memory.logits);
}

TEST(RankMemoryTest, TheEmbeddingsRowsAreGatheredWhereThatAtLeastHalvesWhatIsSent) {
  const auto gathers = [](const std::function<void(RankMemoryInput&)>& change) {
    const RankMemory memory = With([&](auto& in) { in.ranks = 2, change(in); });
    return memory.gathers_embedding_rows;
  };
  EXPECT_TRUE(gathers([](auto&) {}));  // 2 * 1024 rows of 8192
  EXPECT_TRUE(gathers([](auto& in) { in.ranks = 4; }));
  EXPECT_FALSE(gathers([](auto& in) { in.ranks = 8; }));
  EXPECT_FALSE(gathers([](auto& in) { in.ranks = 1; }));
  EXPECT_FALSE(gathers([](auto& in) { in.micro_batch_sequences = 9; }));
  EXPECT_FALSE(gathers([](auto& in) { in.gradient_accumulation = 2; }));
  EXPECT_FALSE(gathers([](auto& in) { in.model.tie_word_embeddings = true; }));
}

TEST(RankMemoryTest, GatheredRowsHaveRoomInTheWorkspace) {
  const auto workspace = [](int64_t accumulation) {
    return With([=](auto& in) {
             in.ranks = 64;
             in.model.vocab_size = 1 << 20;
             in.gradient_accumulation = accumulation;
           })
        .workspace;
  };
  const int64_t rows = 64 * 1024 * int64_t{256} * 4;
  EXPECT_GT(workspace(1), rows);
  EXPECT_LT(workspace(2), rows / 2);
}

TEST(RankMemoryTest, ExpertParallelismDividesExpertsAndTheirMoments) {
  const RankMemory one = With([](auto& in) { in.ranks = 4; });
  const RankMemory four = With([](auto& in) { in.ranks = 4, in.expert_parallel = 4; });
  const int64_t experts = Small().model.NumExpertParameters();
  EXPECT_EQ(one.parameters - four.parameters, 4 * (experts - experts / 4));
  EXPECT_EQ(one.optimizer, four.optimizer);  // ZeRO-1 over 4 ranks either way
  EXPECT_GT(four.windows, 0);
  EXPECT_EQ(four.max_rows, 4 * 1024 * 4);
  EXPECT_LT(four.row_capacity, four.max_rows);
}

TEST(RankMemoryTest, ProfilesHaveTheirBytesPerParameter) {
  const int64_t parameters = Small().model.NumParameters();
  const RankMemory exact = With([](auto& in) { in.precision = Precision::kBfloat16; });
  EXPECT_EQ(exact.parameters + exact.optimizer, 12 * parameters);
  const RankMemory compact = With([](auto& in) {
    in.precision = Precision::kBfloat16;
    in.optimizer = OptimizerProfile::kCompact;
  });
  EXPECT_EQ(compact.parameters + compact.optimizer, 6 * parameters);
}

TEST(RankMemoryTest, AccumulationKeepsAllGradientsInFloat32) {
  const RankMemory memory = With([](auto& in) {
    in.gradient_accumulation = 2;
    in.precision = Precision::kBfloat16;
  });
  EXPECT_EQ(memory.gradients, 4 * Small().model.NumParameters());
  EXPECT_EQ(memory.outer_gradient_bytes, 0);
}

TEST(RankMemoryTest, MoreTokensNeverNeedLess) {
  int64_t before = 0;
  for (int64_t sequences = 1; sequences <= 64; sequences *= 2) {
    const int64_t now = With([&](auto& in) { in.micro_batch_sequences = sequences; }).Total();
    EXPECT_GT(now, before);
    before = now;
  }
}

TEST(RankMemoryTest, SavingLessMakesSlotsSmallerDownToTheGradients) {
  for (const int64_t accumulation : {1, 2}) {
    RankMemory before;
    for (const ActivationMemory activations : kActivationMemories) {
      const RankMemory now = With([&](auto& in) {
        in.activations = activations;
        in.gradient_accumulation = accumulation;
        in.sequence_length = 2048;
        in.device = DeviceKind::kCuda;
        in.precision = Precision::kBfloat16;
      });
      EXPECT_EQ(now.activations, activations);
      if (!before.slot_bytes.empty()) {
        EXPECT_LT(now.saved_activations, before.saved_activations);
        EXPECT_LT(now.Total(), before.Total());
        EXPECT_LT(now.slot_bytes[1], before.slot_bytes[1]);
        EXPECT_EQ(now.max_rows, before.max_rows);
      }
      before = now;
    }
  }
  // Few tokens: slots are as large as gradients whatever is saved, and recomputing needs room.
  const auto few = [](ActivationMemory activations) {
    return With([&](auto& in) {
      in.activations = activations;
      in.micro_batch_sequences = 1;
      in.sequence_length = 64;
    });
  };
  const RankMemory most = few(ActivationMemory::kRecomputeRows);
  const RankMemory least = few(ActivationMemory::kRecomputeLayer);
  EXPECT_EQ(most.slot_bytes[1], least.slot_bytes[1]);
  EXPECT_LT(most.workspace, least.workspace);
}

TEST(RankMemoryTest, WithoutAChoiceAllIsSavedWhereGradientsComeAnyway) {
  const auto choice = [](int64_t length, int64_t accumulation) {
    return With([&](auto& in) {
             in.sequence_length = length;
             in.gradient_accumulation = accumulation;
           })
        .activations;
  };
  EXPECT_EQ(choice(32, 1), ActivationMemory::kSaveAll);
  EXPECT_EQ(choice(32, 2), ActivationMemory::kRecomputeRows);
  EXPECT_EQ(choice(4096, 1), ActivationMemory::kRecomputeRows);
}

TEST(RankMemoryTest, AbsurdSizesSaturate) {
  const RankMemory memory = With([](auto& in) {
    in.micro_batch_sequences = INT32_MAX;
    in.sequence_length = INT32_MAX;
    in.ranks = 16, in.expert_parallel = 16;
  });
  EXPECT_GT(memory.Total(), int64_t{1} << 45);
  EXPECT_LE(memory.Total(), kTooManyBytes);
}

TEST(RankMemoryTest, DeterministicAttentionOnAGpuHasScratchOfItsOwn) {
  const auto gpu = [](bool deterministic) {
    return With([=](auto& in) {
      in.device = DeviceKind::kCuda;
      in.precision = Precision::kBfloat16;
      in.deterministic = deterministic;
    });
  };
  EXPECT_EQ(gpu(false).deterministic_scratch, 0);
  // 8 documents of 256 tokens, 8 heads; and what attention wants of 1,024 tokens anyhow.
  const int64_t width = 8 * Small().model.head_dim;
  EXPECT_EQ(gpu(true).deterministic_scratch,
            2 * 8 * 8 * 256 * 256 + 1024 * width * kDeterministicAttentionScratch);
  EXPECT_EQ(gpu(true).Total() - gpu(false).Total(), gpu(true).deterministic_scratch);
  EXPECT_EQ(With([](auto& in) { in.deterministic = true; }).deterministic_scratch, 0);
  // Short documents find room where attention's scratch is anyhow.
  constexpr int64_t kElements = 4096, kRoom = kAttentionScratch - kDeterministicAttentionScratch;
  EXPECT_EQ(DeterministicAttentionBytes(kRoom * kElements, kElements), 0);
  EXPECT_EQ(DeterministicAttentionBytes(kRoom * kElements + 64, kElements),
            kAttentionScratch * kElements + 64);
}

TEST(PackedAttentionTest, ClassesArePowersOfTwoUpToTheSequence) {
  const auto is = [](DocumentClass found, int64_t documents, int64_t length) {
    return found.documents == documents && found.length == length;
  };
  EXPECT_TRUE(is(ClassOfDocuments(1, 5, 4096), 8, 128));
  EXPECT_TRUE(is(ClassOfDocuments(9, 129, 4096), 16, 256));
  EXPECT_TRUE(is(ClassOfDocuments(33, 2049, 3000), 64, 3000));
  EXPECT_TRUE(is(ClassOfDocuments(8, 64, 64), 8, 64));
  EXPECT_EQ(DeterministicScratchBytes({64, 4096}, 32), int64_t{64} << 30);
  EXPECT_EQ(DeterministicScratchBytes({int64_t{1} << 40, int64_t{1} << 20}, 32), kTooManyBytes);
}

}  // namespace
}  // namespace switchyard
