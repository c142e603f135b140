#include "worker/trainer/optim/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "worker/trainer/optim/schedule.h"

namespace switchyard::trainer {
namespace {

constexpr AdamWOptions kOptions = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};

double Norm(const at::Tensor& tensor) { return at::linalg_vector_norm(tensor).item<double>(); }

TEST(AdamWTest, AgreesWithTorchToAMillionthOfTheUpdate) {
  const int64_t n = 20000;
  const double learning_rate = 1e-2;
  at::Tensor weight = at::randn({n}) * 0.02;
  at::Tensor m = at::zeros({n}), v = at::zeros({n});
  at::Tensor torch_weight = weight.clone(), torch_m = m.clone(), torch_v = v.clone();
  for (int t = 1; t <= 5; ++t) {
    const at::Tensor gradient = at::randn({n}) * 0.3;
    const at::Tensor before = torch_weight.clone();
    at::_fused_adamw_({torch_weight}, {gradient}, {torch_m}, {torch_v}, {},
                      {at::full({}, t, at::kFloat)}, learning_rate, kOptions.beta1, kOptions.beta2,
                      kOptions.weight_decay, kOptions.eps, false, false);
    const AdamWStep step(kOptions, learning_rate, t, 1.0, true);
    UpdateFloat32(step, n, gradient.const_data_ptr<float>(), weight.mutable_data_ptr<float>(),
                  m.mutable_data_ptr<float>(), v.mutable_data_ptr<float>());
    const double update = Norm(torch_weight - before);
    EXPECT_LT(Norm(weight - torch_weight), 1e-6 * update) << "step " << t;
    weight.copy_(torch_weight);
  }
}

TEST(AdamWTest, SplitWeightsAreBitForBitAFloat32Master) {
  const int64_t n = 4000;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> master(n), m(n), v(n), split_m(n), split_v(n), gradient(n);
  std::vector<c10::BFloat16> weight(n);
  std::vector<int16_t> remainder(n);
  for (int64_t i = 0; i < n; ++i) {
    master[i] = normal(random);
    const SplitFloat split = Split(master[i]);
    weight[i] = split.weight;
    remainder[i] = split.remainder;
  }
  for (int t = 1; t <= 40; ++t) {
    for (float& g : gradient) g = normal(random);
    const AdamWStep step(kOptions, 1e-3, t, 0.7, t % 2 == 0);
    UpdateFloat32(step, n, gradient.data(), master.data(), m.data(), v.data());
    UpdateSplit(step, n, gradient.data(), weight.data(), remainder.data(), split_m.data(),
                split_v.data());
  }
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(Join({weight[i], remainder[i]})),
              std::bit_cast<uint32_t>(master[i]));
    // The weight the model sees is the nearest bfloat16.
    ASSERT_LE(std::abs(static_cast<float>(weight[i]) - master[i]), std::abs(master[i]) / 256);
  }
}

TEST(AdamWTest, SplittingLosesNothing) {
  std::mt19937 random(11);
  for (int i = 0; i < 100000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isfinite(value) || std::abs(value) > 1e38f) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(Join(Split(value))), std::bit_cast<uint32_t>(value));
  }
}

TEST(ScheduleTest, WarmsUpLinearlyThenDecaysToItsMinimum) {
  const ScheduleOptions cosine = {"cosine", 2.0, 0.1, 4, 14};
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 1), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 4), 2.0);
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 5), 2.0);
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 10), 2.0 * (0.1 + 0.9 * 0.5));
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 15), 0.2);
  const ScheduleOptions linear = {"linear", 2.0, 0.0, 0, 10};
  EXPECT_DOUBLE_EQ(LearningRate(linear, 1), 2.0);
  EXPECT_DOUBLE_EQ(LearningRate(linear, 6), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate({"constant", 2.0, 0.5, 0, 10}, 10), 2.0);
  for (int step = 5; step < 14; ++step)
    EXPECT_LT(LearningRate(cosine, step + 1), LearningRate(cosine, step));
}

}  // namespace
}  // namespace switchyard::trainer
