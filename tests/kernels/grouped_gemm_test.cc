#include "kernels/grouped_gemm.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "kernels/reference/reference.h"
#include "tests/kernels/device_buffer.h"

namespace switchyard::kernels {
namespace {

const auto host = [](auto& b) { return b.host(); };
const auto device = [](auto& b) { return b.device(); };

// Tensor cores drop the last bits of partial sums: a few times the error of a float32 sum.
constexpr double kTensorCoreTolerance = 3.0e-5;

enum class Rows { kEven, kSkewed, kOneExpert, kNone };

struct Case {
  int experts, out_features, in_features, rows;
  Rows routing;
};

std::vector<int32_t> Offsets(const Case& c) {
  std::vector<int32_t> count(c.experts, 0);
  if (c.routing == Rows::kEven) {
    for (int i = 0; i < c.rows; ++i) ++count[i % c.experts];
  } else if (c.routing == Rows::kOneExpert) {
    count[c.experts / 2] = c.rows;
  } else if (c.routing == Rows::kSkewed) {  // the square favours low experts; several get none
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (int i = 0; i < c.rows; ++i) {
      const double u = uniform(Rng());
      ++count[static_cast<int>(u * u * u * c.experts) / 3 * 3 % c.experts];
    }
  }
  std::vector<int32_t> offset(c.experts + 1, 0);
  std::partial_sum(count.begin(), count.end(), offset.begin() + 1);
  return offset;
}

// Buffers of one product: the rows beyond the last expert's hold NaN, which must not spread.
class Product {
 public:
  Product(GroupedProduct product, GroupedOutput output, const Case& c, int spare_rows = 9)
      : shape_{product, output, c.experts, c.out_features, c.in_features},
        max_rows_(c.rows + spare_rows),
        offset_(c.experts + 1),
        a_(max_rows_ * (product == GroupedProduct::kForward ? c.in_features : c.out_features)),
        b_(product == GroupedProduct::kWeightGradient ? max_rows_ * c.in_features : Matrices()),
        out_bfloat16_(output == GroupedOutput::kBfloat16 ? OutSize() : 0),
        out_float32_(output == GroupedOutput::kBfloat16 ? 0 : OutSize()),
        workspace_(GroupedGemmWorkspaceBytes(shape_)) {
    SetRouting(Offsets(c));
    if (output == GroupedOutput::kFloat32Add) FillNormal(out_float32_);
    EXPECT_EQ(gemm_.Build(shape_, workspace_.device()), cudaSuccess);
  }

  // Fresh inputs and offsets on both sides.
  void SetRouting(const std::vector<int32_t>& offset) {
    std::copy(offset.begin(), offset.end(), offset_.host());
    offset_.Upload();
    FillNormal(a_);
    FillNormal(b_);
    FillNaN(a_, offset.back());
    if (shape_.product == GroupedProduct::kWeightGradient) FillNaN(b_, offset.back());
  }

  template <typename Side>
  GroupedGemmCall Call(const Side& side) {
    void* out = shape_.output == GroupedOutput::kBfloat16 ? static_cast<void*>(side(out_bfloat16_))
                                                          : static_cast<void*>(side(out_float32_));
    return {&gemm_, side(a_), side(b_), out, {}};
  }
  cudaError_t Prepare(cudaStream_t stream, int64_t max_rows) {
    return PrepareGroupedGemms({{Call(device)}, 1, offset_.device(), max_rows}, stream);
  }
  void Reference() { reference::GroupedGemm(shape_, Call(host), offset_.host(), max_rows_); }
  void RunBoth(int sm_limit = 0) {
    ASSERT_EQ(Prepare(nullptr, max_rows_), cudaSuccess);
    ASSERT_EQ(gemm_.Run(nullptr, sm_limit), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    Reference();
  }

  // Error over what must be written; all of the rest must be as it was.
  void ExpectEqual() {
    if (shape_.output != GroupedOutput::kBfloat16) {
      EXPECT_LT(RelativeError(out_float32_), kTensorCoreTolerance);
      return;
    }
    size_t written = out_bfloat16_.size();
    if (shape_.product != GroupedProduct::kWeightGradient) {
      written = written / max_rows_ * offset_[shape_.num_experts];
      const std::vector<nv_bfloat16> out = out_bfloat16_.Download();
      for (size_t i = written; i < out.size(); ++i) {
        uint16_t bits;
        std::memcpy(&bits, &out[i], 2);
        ASSERT_EQ(bits, 0x7f7f) << "element " << i << " is beyond the last expert's rows";
      }
    }
    if (Norm(written) == 0) {  // no rows: nothing, or zeros
      const std::vector<nv_bfloat16> out = out_bfloat16_.Download();
      for (size_t i = 0; i < written; ++i) ASSERT_EQ(ToFloat(out[i]), 0.0f) << i;
    } else {
      EXPECT_LT(RelativeError(out_bfloat16_, written), kBf16Tolerance);
    }
  }

  std::vector<nv_bfloat16> Result() const { return out_bfloat16_.Download(); }
  GroupedGemm& gemm() { return gemm_; }
  Buffer<float>& out_float32() { return out_float32_; }
  int64_t max_rows() const { return max_rows_; }

 private:
  size_t Matrices() const {
    return static_cast<size_t>(shape_.num_experts) * shape_.out_features * shape_.in_features;
  }
  size_t OutSize() const {
    if (shape_.product == GroupedProduct::kWeightGradient) return Matrices();
    return max_rows_ *
           (shape_.product == GroupedProduct::kForward ? shape_.out_features : shape_.in_features);
  }
  double Norm(size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += std::abs(ToFloat(out_bfloat16_[i]));
    return sum;
  }
  void FillNaN(Buffer<nv_bfloat16>& rows, int64_t first) {
    const nv_bfloat16 nan = ToBf16(std::numeric_limits<double>::quiet_NaN());
    std::fill(rows.host() + rows.size() / max_rows_ * first, rows.host() + rows.size(), nan);
    rows.Upload();
  }

  GroupedGemmShape shape_;
  int64_t max_rows_;
  Buffer<int32_t> offset_;
  Buffer<nv_bfloat16> a_, b_, out_bfloat16_;
  Buffer<float> out_float32_;
  Buffer<char> workspace_;
  GroupedGemm gemm_;
};

class GroupedGemmTest : public testing::TestWithParam<Case> {};

TEST_P(GroupedGemmTest, EveryProductMatchesTheReference) {
  SWITCHYARD_REQUIRE_GPU();
  for (const auto& [product, output] :
       {std::pair{GroupedProduct::kForward, GroupedOutput::kBfloat16},
        std::pair{GroupedProduct::kTransposed, GroupedOutput::kBfloat16},
        std::pair{GroupedProduct::kWeightGradient, GroupedOutput::kBfloat16},
        std::pair{GroupedProduct::kWeightGradient, GroupedOutput::kFloat32},
        std::pair{GroupedProduct::kWeightGradient, GroupedOutput::kFloat32Add}}) {
    SCOPED_TRACE(testing::Message() << "product " << static_cast<int>(product) << " output "
                                    << static_cast<int>(output));
    if (GetParam().routing == Rows::kNone && output == GroupedOutput::kFloat32) continue;
    Product p(product, output, GetParam());
    p.RunBoth();
    p.ExpectEqual();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GroupedGemmTest,
    testing::Values(Case{4, 256, 128, 500, Rows::kEven}, Case{16, 128, 256, 1000, Rows::kSkewed},
                    Case{8, 64, 256, 333, Rows::kOneExpert}, Case{4, 256, 64, 0, Rows::kNone},
                    Case{3, 72, 200, 130, Rows::kEven}, Case{5, 8, 8, 17, Rows::kSkewed},
                    Case{1, 384, 136, 257, Rows::kEven}, Case{128, 64, 64, 700, Rows::kSkewed},
                    Case{130, 192, 64, 129, Rows::kEven}, Case{6, 1536, 512, 400, Rows::kSkewed}));

TEST(GroupedGemmRunTest, Float32WithoutRowsIsZeroAndAddingLeavesIt) {
  SWITCHYARD_REQUIRE_GPU();
  const Case none{4, 64, 256, 0, Rows::kNone};
  Product set(GroupedProduct::kWeightGradient, GroupedOutput::kFloat32, none);
  set.RunBoth();
  for (const float v : set.out_float32().Download()) ASSERT_EQ(v, 0.0f);
  Product add(GroupedProduct::kWeightGradient, GroupedOutput::kFloat32Add, none);
  add.RunBoth();
  EXPECT_TRUE(SameBytes(add.out_float32()));
}

TEST(GroupedGemmRunTest, FewerMultiprocessorsGiveTheSameBytes) {
  SWITCHYARD_REQUIRE_GPU();
  const Case c{16, 512, 256, 3000, Rows::kSkewed};
  for (const GroupedProduct product :
       {GroupedProduct::kForward, GroupedProduct::kTransposed, GroupedProduct::kWeightGradient}) {
    Product p(product, GroupedOutput::kBfloat16, c, 0);
    p.RunBoth();
    const std::vector<nv_bfloat16> all = p.Result();
    for (const int sm_limit : {1, 24, 124, 100'000}) {
      ASSERT_EQ(p.gemm().Run(nullptr, sm_limit), cudaSuccess);
      const std::vector<nv_bfloat16> some = p.Result();
      EXPECT_EQ(std::memcmp(all.data(), some.data(), all.size() * 2), 0) << sm_limit;
    }
  }
}

TEST(GroupedGemmRunTest, ACapturedLayerFollowsNewRoutings) {
  SWITCHYARD_REQUIRE_GPU();
  Case c{8, 256, 128, 600, Rows::kEven};
  Product forward(GroupedProduct::kForward, GroupedOutput::kBfloat16, c);
  Product gradient(GroupedProduct::kWeightGradient, GroupedOutput::kBfloat16, c);
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  for (Product* p : {&forward, &gradient}) {
    ASSERT_EQ(p->Prepare(stream, p->max_rows()), cudaSuccess);
    ASSERT_EQ(p->gemm().Run(stream, 120), cudaSuccess);
  }
  cudaGraph_t graph;
  cudaGraphExec_t step;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&step, graph, 0), cudaSuccess);
  for (const Rows routing : {Rows::kEven, Rows::kOneExpert, Rows::kSkewed}) {
    c.routing = routing;
    for (Product* p : {&forward, &gradient}) p->SetRouting(Offsets(c));
    ASSERT_EQ(cudaGraphLaunch(step, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    for (Product* p : {&forward, &gradient}) {
      p->Reference();
      p->ExpectEqual();
    }
  }
  cudaGraphExecDestroy(step);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST(GroupedGemmRunTest, RowsBeyondTheBufferAreLeftOut) {
  SWITCHYARD_REQUIRE_GPU();
  const Case c{4, 128, 64, 200, Rows::kEven};  // 50 rows each
  Product p(GroupedProduct::kForward, GroupedOutput::kBfloat16, c, 0);
  ASSERT_EQ(p.Prepare(nullptr, 120), cudaSuccess);
  ASSERT_EQ(p.gemm().Run(nullptr), cudaSuccess);
  const std::vector<nv_bfloat16> out = p.Result();
  uint16_t last_inside, first_outside;
  std::memcpy(&last_inside, &out[120 * 128 - 1], 2);
  std::memcpy(&first_outside, &out[120 * 128], 2);
  EXPECT_NE(last_inside, 0x7f7f);
  EXPECT_EQ(first_outside, 0x7f7f);
}

TEST(GroupedGemmRunTest, SeveralProductsArePreparedByOneLaunch) {
  SWITCHYARD_REQUIRE_GPU();
  const Case c{6, 128, 256, 300, Rows::kSkewed};
  const std::vector<int32_t> offsets = Offsets(c);
  Buffer<int32_t> offset(offsets.size());
  std::copy(offsets.begin(), offsets.end(), offset.host());
  offset.Upload();
  Product forward(GroupedProduct::kForward, GroupedOutput::kBfloat16, c);
  Product transposed(GroupedProduct::kTransposed, GroupedOutput::kBfloat16, c);
  Product gradient(GroupedProduct::kWeightGradient, GroupedOutput::kFloat32, c);
  std::vector<Product*> products{&forward, &transposed, &gradient};
  PrepareGroupedGemmsParams params{};
  for (Product* p : products) {
    p->SetRouting(offsets);
    params.calls[params.num_calls++] = p->Call(device);
  }
  params.offset_L1 = offset.device();
  params.max_rows = forward.max_rows();
  ASSERT_EQ(PrepareGroupedGemms(params, nullptr), cudaSuccess);
  for (Product* p : products) ASSERT_EQ(p->gemm().Run(nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (Product* p : products) {
    p->Reference();
    p->ExpectEqual();
  }
}

class GroupedSwigluTest : public testing::TestWithParam<Case> {};

TEST_P(GroupedSwigluTest, TheFusedProductWritesTheBytesOfSeparateOnes) {
  SWITCHYARD_REQUIRE_GPU();
  const Case c = GetParam();  // of the weight of gate and up
  const int ffn = c.out_features / 2, max_rows = c.rows + 9;
  const size_t size = static_cast<size_t>(max_rows) * ffn;
  const std::vector<int32_t> offsets = Offsets(c);
  Buffer<int32_t> offset(offsets.size());
  std::copy(offsets.begin(), offsets.end(), offset.host());
  offset.Upload();
  Buffer<nv_bfloat16> x(static_cast<size_t>(max_rows) * c.in_features);
  Buffer<nv_bfloat16> weight(static_cast<size_t>(c.experts) * c.out_features * c.in_features);
  Buffer<float> row_weight(max_rows);
  FillNormal(x);
  FillNormal(weight, 2.0 / std::sqrt(c.in_features));
  FillNormal(row_weight, 0.1, 0.3);
  Buffer<nv_bfloat16> gate_up(2 * size), fused_gate_up(2 * size), h(size), fused_h(size);

  const auto run = [&](GroupedProduct product, Buffer<nv_bfloat16>& out,
                       const SwigluOperands& swiglu) {
    const GroupedGemmShape shape{product, GroupedOutput::kBfloat16, c.experts, c.out_features,
                                 c.in_features};
    Buffer<char> workspace(GroupedGemmWorkspaceBytes(shape));
    GroupedGemm gemm;
    ASSERT_EQ(gemm.Build(shape, workspace.device()), cudaSuccess);
    const GroupedGemmCall call{&gemm, x.device(), weight.device(), out.device(), swiglu};
    ASSERT_EQ(PrepareGroupedGemms({{call}, 1, offset.device(), max_rows}, nullptr), cudaSuccess);
    ASSERT_EQ(gemm.Run(nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  };
  run(GroupedProduct::kForward, gate_up, {});
  ASSERT_EQ(SwigluForward({gate_up.device(), row_weight.device(), h.device(), max_rows,
                           offset.device() + c.experts, ffn},
                          nullptr),
            cudaSuccess);
  run(GroupedProduct::kForwardSwiglu, fused_gate_up, {row_weight.device(), fused_h.device()});
  // Rows beyond the last expert's too: untouched.
  for (const auto& [one, other] : {std::pair{&gate_up, &fused_gate_up}, std::pair{&h, &fused_h}}) {
    EXPECT_EQ(std::memcmp(one->Download().data(), other->Download().data(), 2 * one->size()), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GroupedSwigluTest,
                         testing::Values(Case{4, 512, 256, 700, Rows::kSkewed},
                                         Case{6, 1536, 2048, 900, Rows::kSkewed},
                                         Case{16, 128, 256, 1000, Rows::kEven},
                                         Case{3, 32, 64, 65, Rows::kOneExpert},
                                         Case{5, 224, 136, 300, Rows::kSkewed}));

TEST(GroupedGemmShapeTest, AnImpossibleShapeNamesMemberAndValue) {
  const GroupedGemmShape good{GroupedProduct::kForward, GroupedOutput::kBfloat16, 4, 64, 256};
  EXPECT_EQ(GroupedGemmShapeError(good), "");
  EXPECT_GT(GroupedGemmWorkspaceBytes(good), 0);
  GroupedGemmShape shape = good;
  shape.out_features = 100;
  EXPECT_NE(GroupedGemmShapeError(shape).find("out_features is 100"), std::string::npos);
  shape = good, shape.in_features = 0;
  EXPECT_NE(GroupedGemmShapeError(shape).find("in_features is 0"), std::string::npos);
  shape = good, shape.num_experts = -1;
  EXPECT_NE(GroupedGemmShapeError(shape).find("num_experts is -1"), std::string::npos);
  shape = good, shape.output = GroupedOutput::kFloat32Add;
  EXPECT_NE(GroupedGemmShapeError(shape).find("weight gradients only"), std::string::npos);
  shape = {GroupedProduct::kForwardSwiglu, GroupedOutput::kBfloat16, 4, 80, 256};
  EXPECT_NE(GroupedGemmShapeError(shape).find("out_features is 80"), std::string::npos);
  GroupedGemm gemm;
  EXPECT_EQ(gemm.Build(shape, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(gemm.Run(nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace switchyard::kernels
