#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>

#include "tests/trainer/support/prepared_data.h"
#include "worker/trainer/data/attention_scratch.h"
#include "worker/trainer/data/batch_builder.h"
#include "worker/trainer/data/batch_order.h"

namespace switchyard::trainer {
namespace {

BatchOrderOptions Options(int64_t sequences, int64_t global_batch, int64_t ranks,
                          int64_t micro_batch) {
  return {.num_sequences = sequences,
          .global_batch = global_batch,
          .ranks = ranks,
          .micro_batch = micro_batch,
          .seed = 5};
}

TEST(BatchOrderTest, AnEpochTakesEverySequenceOnceAndFillsItsLastBatchWithEmptyOnes) {
  BatchOrder order(Options(23, 8, 2, 2));
  ASSERT_EQ(order.steps_per_epoch(), 3);
  std::vector<std::vector<int64_t>> epochs;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> taken;
    for (int64_t s = 0; s < 3; ++s) {
      for (int64_t sequence : order.GlobalBatch(epoch * 3 + s)) taken.push_back(sequence);
    }
    EXPECT_EQ(std::count(taken.begin(), taken.end(), kEmptySequence), 1);
    EXPECT_EQ(taken.back(), kEmptySequence);
    taken.pop_back();
    epochs.push_back(taken);
    std::sort(taken.begin(), taken.end());
    std::vector<int64_t> all(23);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(taken, all);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_FALSE(std::is_sorted(epochs[0].begin(), epochs[0].end()));
}

TEST(BatchOrderTest, TheStepAloneDecidesWhicheverStepsWereAskedForBefore) {
  BatchOrder first(Options(23, 8, 1, 1)), second(Options(23, 8, 4, 2));
  const std::vector<int64_t> wanted = first.GlobalBatch(7);
  for (int64_t step : {0, 5, 3}) second.GlobalBatch(step);
  EXPECT_EQ(second.GlobalBatch(7), wanted);
}

TEST(BatchOrderTest, AnyMeshDealsTheSameSequencesInTheSameOrder) {
  for (auto [ranks, micro_batch] :
       {std::pair<int64_t, int64_t>{1, 1}, {1, 4}, {2, 2}, {4, 1}, {4, 2}, {3, 5}}) {
    BatchOrder order(Options(50, 12, ranks, micro_batch));
    std::vector<int64_t> dealt;
    for (int64_t a = 0; a < order.accumulation_steps(); ++a) {
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const std::vector<int64_t> own = order.MicroBatch(3, a, rank);
        EXPECT_EQ(static_cast<int64_t>(own.size()), micro_batch);
        dealt.insert(dealt.end(), own.begin(), own.end());
      }
    }
    EXPECT_EQ(std::vector<int64_t>(dealt.begin(), dealt.begin() + 12), order.GlobalBatch(3));
    EXPECT_EQ(std::set<int64_t>(dealt.begin() + 12, dealt.end()).size(), dealt.size() > 12 ? 1 : 0);
  }
}

template <typename T>
std::vector<T> Values(const at::Tensor& tensor) {
  const T* data = tensor.const_data_ptr<T>();
  return std::vector<T>(data, data + tensor.numel());
}

TEST(BatchBuilderTest, ShiftsTargetsRestartsPositionsAndMarksPadding) {
  const std::string directory =
      ::testing::TempDir() + "/switchyard-batch-" + std::to_string(getpid());
  WritePreparedData(directory, 8, 100,
                    {{{{10, 11, 12}, {20, 21, 22}}, 2}, {{{30, 31, 32, 33, 34, 35, 36, 37}}, 1}});
  const absl::StatusOr<TokenShards> shards = TokenShards::Open(directory, {8, 100, true});
  ASSERT_TRUE(shards.ok()) << shards.status();
  const Batch batch = BuildBatch(*shards, {0, kEmptySequence, 1});
  using Longs = std::vector<int64_t>;
  EXPECT_EQ(Values<int64_t>(batch.input_id_T), (Longs{10, 11, 12, 20, 21, 22, 0,  0,  //
                                                      0,  0,  0,  0,  0,  0,  0,  0,  //
                                                      30, 31, 32, 33, 34, 35, 36, 37}));
  EXPECT_EQ(Values<int64_t>(batch.target_T),
            (Longs{-100, 12,   -100, -100, 22,   -100, -100, -100,  //
                   -100, -100, -100, -100, -100, -100, -100, -100,  //
                   31,   32,   33,   34,   35,   36,   37,   -100}));
  EXPECT_EQ(Values<int64_t>(batch.position_T),
            (Longs{0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(Values<int32_t>(batch.document_offset), (std::vector<int32_t>{0, 3, 6, 8, 16, 24}));
  EXPECT_EQ(batch.num_tokens, 14);
  EXPECT_EQ(batch.num_targets, 9);
  EXPECT_EQ(CountTargets(*shards, {0, kEmptySequence, 1}), 9);
  const std::vector<bool> valid(Values<bool>(batch.valid_T));
  EXPECT_EQ(std::count(valid.begin(), valid.end(), true), 14);
  EXPECT_FALSE(valid[6]);
  EXPECT_TRUE(valid[16]);
  std::filesystem::remove_all(directory);
}

// A document of `length` tokens.
std::vector<int32_t> Document(size_t length) { return std::vector<int32_t>(length, 1); }

TEST(AttentionScratchTest, IsOfTheMicroBatchWhoseDocumentsWantMostWhereverInTheRunItComes) {
  const std::string directory =
      ::testing::TempDir() + "/switchyard-scratch-" + std::to_string(getpid());
  const PreparedSequence whole = {{Document(512)}};
  const PreparedSequence two = {{Document(200), Document(312)}};
  PreparedSequence many;
  for (int i = 0; i < 32; ++i) many.documents.push_back(Document(16));
  WritePreparedData(directory, 512, 100, {whole, two, many});
  const TokenShards data = TokenShards::Open(directory, {512, 100}).value();

  BatchOrder alone(Options(3, 3, 1, 1));
  const AttentionScratch one = LargestAttentionScratch(data, alone, 1, 0, 4);
  // Two documents of up to 512 tokens want more than 32 of up to 128: 8 x 512^2 against 32 x 128^2.
  EXPECT_EQ(one.documents.documents, 8);
  EXPECT_EQ(one.documents.length, 512);
  EXPECT_EQ(one.bytes, 2 * 8 * 4 * 512 * 512);
  EXPECT_EQ(one.step, 1);

  // In one micro-batch the longest of one sequence meets the many of another.
  BatchOrder together(Options(3, 3, 1, 3));
  EXPECT_EQ(LargestAttentionScratch(data, together, 1, 0, 4).bytes,
            int64_t{2} * 64 * 4 * 512 * 512);

  // Every sequence in a step of its own: the second epoch holds nothing that the first does not.
  BatchOrder single(Options(3, 1, 1, 1));
  const AttentionScratch epoch = LargestAttentionScratch(data, single, 3, 0, 4);
  EXPECT_EQ(epoch.bytes, one.bytes);
  EXPECT_EQ(single.GlobalBatch(epoch.step - 1), std::vector<int64_t>{1});
  EXPECT_EQ(LargestAttentionScratch(data, single, 6, 0, 4).step, epoch.step);
  std::filesystem::remove_all(directory);
}

TEST(AttentionScratchTest, IsOfTheSequencesWhereEachIsOneDocument) {
  const std::string directory =
      ::testing::TempDir() + "/switchyard-whole-" + std::to_string(getpid());
  const PreparedSequence whole = {{Document(512)}};
  WritePreparedData(directory, 512, 100, {whole, whole});
  const TokenShards data = TokenShards::Open(directory, {512, 100}).value();
  BatchOrder order(Options(2, 2, 1, 2));
  EXPECT_EQ(LargestAttentionScratch(data, order, 4, 0, 4).bytes, 2 * 2 * 4 * 512 * 512);
  // The last batch of an epoch is filled with padding, which is a document a sequence.
  BatchOrder filled(Options(2, 3, 1, 3));
  EXPECT_EQ(LargestAttentionScratch(data, filled, 4, 0, 4).bytes, 2 * 3 * 4 * 512 * 512);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace switchyard::trainer
