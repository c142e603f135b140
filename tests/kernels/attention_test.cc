#include "kernels/reference/attention_reference.h"
#include "tests/kernels/device_buffer.h"

namespace switchyard::kernels {
namespace {

struct Case {
  const char* name;
  int heads, kv_heads, head_dim;
  int64_t tokens, sequence_length;
  std::vector<int32_t> offsets;  // of documents; empty: whole sequences
  bool deterministic;
};

AttentionOptions Options(const Case& c) {
  AttentionOptions o;
  o.num_heads = c.heads, o.num_kv_heads = c.kv_heads, o.head_dim = c.head_dim;
  o.num_tokens = c.tokens, o.sequence_length = c.sequence_length;
  o.max_documents = c.offsets.empty() ? 0 : 16;
  o.deterministic = c.deterministic;
  // As the engine lays them out: normed q and k in one buffer, v in the projection's, gradients of
  // k and v apart.
  o.query_stride = o.key_stride = (c.heads + c.kv_heads) * c.head_dim;
  o.value_stride = (c.heads + 2 * c.kv_heads) * c.head_dim;
  o.out_stride = c.heads * c.head_dim;
  o.grad_key_stride = o.grad_value_stride = c.kv_heads * c.head_dim;
  return o;
}

class AttentionTest : public testing::TestWithParam<Case> {};

TEST_P(AttentionTest, ForwardAndBackwardMatchTheReference) {
  SWITCHYARD_REQUIRE_GPU();
  const Case c = GetParam();
  const AttentionOptions o = Options(c);
  std::string error;
  const auto attention = Attention::Create(o, &error);
  ASSERT_NE(attention, nullptr) << error;

  Buffer<nv_bfloat16> qk(c.tokens * o.query_stride), qkv(c.tokens * o.value_stride),
      out(c.tokens * o.out_stride), grad_out(c.tokens * o.out_stride),
      grad_qk(c.tokens * o.query_stride), grad_key(c.tokens * o.grad_key_stride),
      grad_value(c.tokens * o.grad_value_stride);
  Buffer<float> stats(c.tokens * c.heads);
  FillNormal(qk);
  FillNormal(qkv);
  FillNormal(grad_out);
  FillNormal(grad_qk);  // the key part stays as it is
  std::vector<int32_t> offsets = c.offsets;
  for (int32_t t = 0; c.offsets.empty() && t <= c.tokens;
       t += static_cast<int32_t>(c.sequence_length)) {
    offsets.push_back(t);
  }
  Buffer<int32_t> device_offsets(offsets.size());
  std::copy(offsets.begin(), offsets.end(), device_offsets.host());
  device_offsets.Upload();
  Buffer<char> documents(attention->documents_bytes() + 1),
      workspace(
          std::max(attention->forward_workspace_bytes(), attention->backward_workspace_bytes()) +
          1);
  if (!c.offsets.empty()) {
    ASSERT_EQ(
        attention->FillDocuments(device_offsets.device(), static_cast<int32_t>(offsets.size()) - 1,
                                 documents.device(), nullptr),
        cudaSuccess);
  }
  const auto buffers = [&](auto pointer) {
    AttentionBuffers b;
    b.query = pointer(qk), b.key = pointer(qk) + c.heads * c.head_dim;
    b.value = pointer(qkv) + (c.heads + c.kv_heads) * c.head_dim;
    b.out = pointer(out), b.log_sum_exp = pointer(stats), b.documents = documents.device();
    b.grad_out = pointer(grad_out), b.grad_query = pointer(grad_qk);
    b.grad_key = pointer(grad_key), b.grad_value = pointer(grad_value);
    return b;
  };
  const AttentionBuffers host = buffers([](auto& b) { return b.host(); });
  const AttentionBuffers device = buffers([](auto& b) { return b.device(); });
  reference::AttentionForward(o, offsets, host);
  ASSERT_TRUE(attention->Forward(device, workspace.device(), nullptr));
  // Probabilities are rounded to bfloat16 before they meet the values.
  EXPECT_LT(RelativeError(out), 5e-3);
  out.Upload();
  reference::AttentionBackward(o, offsets, host);
  ASSERT_TRUE(attention->Backward(device, workspace.device(), nullptr));
  EXPECT_LT(RelativeError(grad_qk), 6e-3);
  EXPECT_LT(RelativeError(grad_key), 6e-3);
  EXPECT_LT(RelativeError(grad_value), 6e-3);

  if (!c.deterministic) return;
  const std::vector<nv_bfloat16> first[] = {grad_qk.Download(), grad_key.Download(),
                                            grad_value.Download()};
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(attention->Backward(device, workspace.device(), nullptr));
    const std::vector<nv_bfloat16> again[] = {grad_qk.Download(), grad_key.Download(),
                                              grad_value.Download()};
    for (int j = 0; j < 3; ++j) {
      EXPECT_EQ(
          std::memcmp(first[j].data(), again[j].data(), again[j].size() * sizeof(nv_bfloat16)), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    testing::Values(
        Case{"dense", 8, 2, 128, 512, 256, {}, false},
        Case{"head_dim_64", 4, 4, 64, 300, 300, {}, false},
        Case{"head_dim_32", 6, 3, 32, 256, 256, {}, false},
        Case{"head_dim_32_packed", 6, 3, 32, 512, 256, {0, 100, 256, 300, 512}, false},
        Case{"deterministic", 8, 2, 128, 512, 512, {}, true},
        Case{"packed", 8, 2, 128, 512, 512, {0, 100, 101, 101, 400, 512}, false},
        Case{"packed_deterministic", 8, 2, 128, 512, 512, {0, 100, 101, 101, 400, 512}, true}),
    [](const auto& test) { return test.param.name; });

TEST(AttentionOptionsTest, ErrorsSayWhatIsWrong) {
  Case c{"", 8, 3, 128, 512, 512, {}, false};
  std::string error;
  EXPECT_EQ(Attention::Create(Options(c), &error), nullptr);
  EXPECT_EQ(error, "num_kv_heads must divide num_heads");
  c.kv_heads = 2, c.head_dim = 80;
  EXPECT_EQ(Attention::Create(Options(c), &error), nullptr);
  EXPECT_EQ(error, "head_dim must be 32, 64 or 128");
}

}  // namespace
}  // namespace switchyard::kernels
