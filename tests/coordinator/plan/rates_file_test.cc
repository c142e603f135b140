#include "coordinator/plan/rates_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/plan/planner.h"
#include "coordinator/plan/throughput_model.h"
#include "tests/coordinator/plan/plan_fixtures.h"

namespace switchyard::coordinator {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kFile[] = R"({"format": 1, "devices": [
  {"product": "NVIDIA H200", "device": "cuda", "precision": "bfloat16", "measured_at": "2026-11-22",
   "dense_flops": 3.25e14, "expert_flops": 3.1e14, "attention_forward_flops": 2.7e14,
   "attention_backward_flops": 2.1e14, "memory_bytes_per_second": 1.8e12, "barrier_seconds": 0,
   "host_bytes_per_second": 5e10}]})";

std::string Message(const std::string& json) {
  const auto rates = ParseRates(json);
  return rates.ok() ? "" : std::string(rates.status().message());
}

std::string With(const std::string& field, const std::string& value) {
  return R"({"format": 1, "devices": [{"product": "x", "device": "cpu", "precision": "float32", ")" +
         field + "\": " + value + "}]}";
}

TEST(RatesFileTest, ReplacesWhatItNamesAndKeepsTheTablesRest) {
  const auto read = ParseRates(kFile);
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ(read->size(), 1u);
  const DeviceRates rates = RatesFor(DeviceKind::kCuda, "NVIDIA H200", Precision::kBfloat16, *read);
  const DeviceRates table = RatesFor(DeviceKind::kCuda, "NVIDIA H200", Precision::kBfloat16);
  EXPECT_EQ(rates.dense_flops, 3.25e14);
  EXPECT_EQ(rates.barrier_seconds, 0);
  EXPECT_EQ(rates.link_bytes_per_second, table.link_bytes_per_second);
  EXPECT_EQ(rates.runtime_baseline_bytes, table.runtime_baseline_bytes);
  EXPECT_TRUE(rates.calibrated);
  EXPECT_FALSE(table.calibrated);
}

TEST(RatesFileTest, OtherProductsAndPrecisionsStayWithTheTable) {
  const auto read = ParseRates(kFile);
  ASSERT_TRUE(read.ok());
  EXPECT_FALSE(RatesFor(DeviceKind::kCuda, "NVIDIA H100", Precision::kBfloat16, *read).calibrated);
  EXPECT_FALSE(RatesFor(DeviceKind::kCuda, "NVIDIA H200", Precision::kFloat32, *read).calibrated);
  EXPECT_FALSE(RatesFor(DeviceKind::kCpu, "NVIDIA H200", Precision::kBfloat16, *read).calibrated);
}

TEST(RatesFileTest, ErrorsNameTheFieldTheValueAndTheFix) {
  EXPECT_THAT(Message("not JSON"), HasSubstr("--calibrate"));
  EXPECT_THAT(Message(R"({"format": 2, "devices": []})"), HasSubstr("format is 2"));
  EXPECT_THAT(Message(R"({"format": 1, "devices": [{"product": ""}]})"),
              HasSubstr("devices[0].product is \"\""));
  EXPECT_THAT(Message(R"({"format": 1, "devices": [7]})"), HasSubstr("devices[0] is no object"));
  EXPECT_THAT(Message(R"({"format": 1, "devices": [{"product": "x", "device": "tpu"}]})"),
              HasSubstr("devices[0].device is \"tpu\"; use"));
  EXPECT_THAT(Message(With("dense_flops", "-1")),
              HasSubstr("devices[0].dense_flops is -1; must be a number between"));
  EXPECT_THAT(Message(With("dense_flops", "\"fast\"")), HasSubstr("is \"fast\""));
  EXPECT_THAT(Message(With("launch_layer_seconds", "3600")), HasSubstr("between 0 and 1"));
  EXPECT_EQ(Message(With("of_a_later_version", "-1")), "");
  EXPECT_THAT(std::string(ReadRatesFile("/does/not/exist").status().message()),
              HasSubstr("/does/not/exist"));
}

TEST(RatesFileTest, APlanUsesTheRatesAndSaysWhereTheyAreFrom) {
  PlanInput input = Qwen3On(GpuSlots(1, 8, "NVIDIA H200", int64_t{139} << 30));
  const v1::Plan known = MakePlan(input);
  input.calibrated = *ParseRates(kFile);
  const v1::Plan measured = MakePlan(input);
  ASSERT_TRUE(measured.feasible());
  EXPECT_LT(measured.tokens_per_second(), 0.7 * known.tokens_per_second());
  EXPECT_GT(measured.tokens_per_second(), 0.4 * known.tokens_per_second());
  EXPECT_THAT(measured.warnings(),
              Contains(HasSubstr("a calibration of NVIDIA H200 on 2026-11-22; measured")));
  EXPECT_THAT(known.warnings(), Contains(HasSubstr("not from this machine")));
}

TEST(ThroughputModelTest, AStepIsNeverFasterThanTheHostEnqueuesIt) {
  ThroughputInput input;
  input.rank.model = DemoModel();
  input.rank.device = DeviceKind::kCuda;
  input.rank.precision = Precision::kBfloat16;
  input.rank.sequence_length = 256;
  input.rates = RatesFor(DeviceKind::kCuda, "NVIDIA H200", Precision::kBfloat16);
  input.rates.launch_layer_seconds = 1e-3;
  input.rates.launch_rest_seconds = 2e-3;
  const double floor = static_cast<double>(input.rank.model.num_layers) * 1e-3 + 2e-3;
  const StepTime small = PredictStep(input);
  EXPECT_GT(small.launch, 0);
  EXPECT_NEAR(small.Total(), floor, 1e-12);
  input.rank.gradient_accumulation = 3;
  EXPECT_NEAR(PredictStep(input).Total(), 3 * floor, 1e-12);
  input.rank.gradient_accumulation = 1;
  // Enough tokens feed the GPU: the host is ahead and costs nothing.
  input.rank.micro_batch_sequences = 4096;
  EXPECT_EQ(PredictStep(input).launch, 0);
}

TEST(ThroughputModelTest, FewRowsOfTheEmbeddingAreSentInsteadOfItsTable) {
  ThroughputInput input;
  input.rank.model = DemoModel();
  input.rank.model.tie_word_embeddings = false;
  input.rank.device = DeviceKind::kCuda;
  input.rank.precision = Precision::kBfloat16;
  input.rank.ranks = 2;
  input.rank.sequence_length = input.rank.model.vocab_size / 4;
  input.rates = RatesFor(DeviceKind::kCuda, "NVIDIA H200", Precision::kBfloat16);
  const double gathered = PredictStep(input).reduction;
  ++input.rank.sequence_length;
  const double reduced = PredictStep(input).reduction;
  // A quarter of the table's rows is sent instead of half.
  const auto rows = static_cast<double>(input.rank.model.vocab_size) / 4;
  const double bytes = rows * static_cast<double>(input.rank.model.hidden_size) * 2;
  EXPECT_NEAR(reduced - gathered, bytes / input.rates.collective_bytes_per_second, 1e-6 * reduced);
}

}  // namespace
}  // namespace switchyard::coordinator
