// Grouped products made ready together, and a product added to a sum: neither may change what comes
// out. Skips where there is no GPU.
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "worker/trainer/ops/device_products.h"
#include "worker/trainer/ops/grouped_gemm.h"
#include "worker/trainer/train/device_backend.h"

namespace switchyard::trainer {
namespace {

#define SWITCHYARD_REQUIRE_GPU()                                 \
  if (c10::cuda::device_count() == 0) {                          \
    GTEST_SKIP() << "no GPU on this machine: built but not run"; \
  }

at::Tensor Random(at::IntArrayRef sizes) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kBFloat16).device(at::kCUDA));
}

// The products of a layer's backward over 5 experts, one of them without rows.
struct Layer {
  ops::ExpertRows rows{at::tensor({0, 7, 7, 300, 310, 450}, at::kInt).to(at::kCUDA), 0};
  at::Tensor weight = Random({5, 256, 128}), x = Random({450, 128}), grad = Random({450, 256});
  at::Tensor out = Empty({450, 256}), grad_x = Empty({450, 128}),
             grad_weight = Empty({5, 256, 128});

  static at::Tensor Empty(at::IntArrayRef sizes) {
    return at::zeros(sizes, at::TensorOptions().dtype(at::kBFloat16).device(at::kCUDA));
  }
  void Forward() { ops::GroupedGemm(rows, x, weight, out); }
  void Backward() {
    ops::GroupedGemmTransposed(rows, grad, weight, grad_x);
    ops::GroupedWeightGradient(rows, grad, x, {grad_weight, false, {}});
  }
  // And clears them.
  std::vector<at::Tensor> Results() {
    std::vector<at::Tensor> results;
    for (at::Tensor& t : std::vector<at::Tensor>{out, grad_x, grad_weight}) {
      results.push_back(t.cpu());
      t.zero_();
    }
    return results;
  }
};

void ExpectSame(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& want) {
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_GT(want[i].abs().sum().item<double>(), 0);
    EXPECT_TRUE(got[i].equal(want[i])) << i;
  }
}

TEST(DeviceProductsTest, PreparedTogetherOrNotTheBytesAreTheSame) {
  SWITCHYARD_REQUIRE_GPU();
  GpuBackend()->Use({});
  Layer layer;
  const auto all = [&] {
    layer.Forward();
    layer.Backward();
  };
  all();
  const std::vector<at::Tensor> want = layer.Results();
  ops::Products().PrepareGrouped(all);
  for (const at::Tensor& t : layer.Results()) EXPECT_EQ(t.abs().sum().item<double>(), 0);
  layer.Backward();  // in another order than prepared
  layer.Forward();
  ExpectSame(layer.Results(), want);
}

TEST(DeviceProductsTest, PreparedProductsTakeTheRoutingOfTheirTime) {
  SWITCHYARD_REQUIRE_GPU();
  GpuBackend()->Use({});
  Layer layer;
  ops::Products().PrepareGrouped([&] { layer.Backward(); });
  layer.Backward();
  layer.Results();
  layer.rows.offset_L1.copy_(at::tensor({0, 100, 200, 210, 440, 450}, at::kInt));
  layer.Backward();  // prepares again by itself
  const std::vector<at::Tensor> alone = layer.Results();
  ops::Products().PrepareGrouped([&] { layer.Backward(); });
  layer.Backward();
  const std::vector<at::Tensor> together = layer.Results();
  EXPECT_TRUE(together[1].equal(alone[1]));
  EXPECT_TRUE(together[2].equal(alone[2]));
  const at::Tensor of_first =
      at::mm(layer.grad.narrow(0, 0, 100).t(), layer.x.narrow(0, 0, 100)).cpu();
  const at::Tensor error = alone[2].select(0, 0).sub(of_first).to(at::kFloat);
  EXPECT_LT(error.norm().item<double>(), 0.01 * of_first.to(at::kFloat).norm().item<double>());
}

TEST(DeviceProductsTest, AddedProductIsThatOfAddmmAndLeavesTheSumAlone) {
  SWITCHYARD_REQUIRE_GPU();
  GpuBackend()->Use({});
  const at::Tensor c = Random({300, 256}), a = Random({300, 512}), b = Random({256, 512});
  const at::Tensor before = c.clone(), out = at::empty_like(c);
  const at::Tensor want = at::addmm(c.to(at::kFloat), a.to(at::kFloat), b.to(at::kFloat).t());
  ops::Products().AddProduct(c, a, b, out);
  const double error = out.to(at::kFloat).sub(want).norm().item<double>();
  EXPECT_LT(error, 3e-3 * want.norm().item<double>());
  EXPECT_TRUE(c.equal(before));
}

TEST(DeviceProductsTest, WhatCannotBeNamesTheNumbers) {
  SWITCHYARD_REQUIRE_GPU();
  GpuBackend()->Use({});
  const at::Tensor c = Random({8, 16}), a = Random({8, 24}), b = Random({16, 32});
  try {
    ops::Products().AddProduct(c, a, b, at::empty_like(c));
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("[16, 24], not"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace switchyard::trainer
