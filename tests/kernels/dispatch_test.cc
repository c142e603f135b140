// Ranks as regions of one GPU's memory: the exchange kernels against their host references, step by
// step without flags, and with flags all ranks at once on streams of their own.
#include "kernels/dispatch.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/reference/reference.h"
#include "tests/kernels/device_buffer.h"

namespace switchyard::kernels {
namespace {

struct Shape {
  int ranks, tokens, experts, top_k, hidden;
  bool padding = false;
  int unused_experts = 0;  // that nobody chooses
};

// Named arrays of one rank, at the same offsets on host and device. Flags and counters come first.
struct Offsets {
  explicit Offsets(const Shape& s) {
    const int64_t p = s.ranks, t = s.tokens, k = s.top_k, d = s.hidden;
    const int64_t max_rows = p * t * std::min(s.top_k, s.experts / s.ranks);
    for (int64_t* word : {&rows_state, &back_state, &error, &rows_taken, &back_taken, &ready})
      *word = Take(128);
    row_flag = Take(p * t * 4);
    back_flag = Take(p * t * 4);
    scratch = Take(DispatchPlanScratchBytes(t, s.experts, s.ranks));
    zeroed = bytes;
    expert = Take(t * k * 4), weight = Take(t * k * 4), x = Take(t * d * 2);
    slot = Take(p * t * 4), token_of_slot = Take(p * t * 4), place = Take(t * k * 4);
    send_count = Take(p * 4), recv_count = Take(p * 4);
    table = Take(p * kExchangeTableInts * 4);
    choice = Take(p * t * k * 4), choice_weight = Take(p * t * k * 4);
    back_weight = Take(p * t * k * 4);
    rows_in = Take(p * t * d * 2), back_in = Take(p * t * d * 2), keep = Take(p * t * d * 2);
    row_of_choice = Take(p * t * k * 4);
    offset = Take((s.experts / s.ranks + 1) * 4);
    weight_R = Take(max_rows * 4), rows = Take(max_rows * d * 2);
    y = Take(t * d * 2), grad_weight = Take(t * k * 4);
  }
  int64_t rows_state, back_state, error, rows_taken, back_taken, ready, row_flag, back_flag,
      scratch;
  int64_t expert, weight, x, slot, token_of_slot, place, send_count, recv_count, table, choice,
      choice_weight, back_weight, rows_in, back_in, keep, row_of_choice, offset, weight_R, rows, y,
      grad_weight;
  int64_t zeroed = 0, bytes = 0;

 private:
  int64_t Take(int64_t size) {
    const int64_t at = bytes;
    bytes += (size + 127) / 128 * 128;
    return at;
  }
};

class Group {
 public:
  explicit Group(const Shape& shape) : s(shape), o(shape) {
    for (int r = 0; r < s.ranks; ++r) {
      memory_.push_back(std::make_unique<Buffer<unsigned char>>(o.bytes));
      std::memset(memory_[r]->host(), 0, o.zeroed);
      EXPECT_EQ(cudaMemset(memory_[r]->device(), 0, o.zeroed), cudaSuccess);
    }
  }

  void Fill() {
    std::vector<int32_t> order(s.experts - s.unused_experts);
    std::iota(order.begin(), order.end(), 0);
    std::normal_distribution<float> normal;
    for (int r = 0; r < s.ranks; ++r) {
      for (int t = 0; t < s.tokens; ++t) {
        std::shuffle(order.begin(), order.end(), Rng());
        for (int k = 0; k < s.top_k; ++k) {
          At<int32_t>(r, o.expert, false)[t * s.top_k + k] =
              s.padding && t % 3 == 1 ? -1 : order[k];
          At<float>(r, o.weight, false)[t * s.top_k + k] = normal(Rng());
        }
      }
      for (int i = 0; i < s.tokens * s.hidden; ++i)
        At<nv_bfloat16>(r, o.x, false)[i] = ToBf16(normal(Rng()));
      EXPECT_EQ(cudaMemcpy(At<char>(r, o.expert, true), At<char>(r, o.expert, false),
                           o.slot - o.expert, cudaMemcpyHostToDevice),
                cudaSuccess);
    }
  }

  template <typename T>
  T* At(int rank, int64_t offset, bool device) {
    return reinterpret_cast<T*>((device ? memory_[rank]->device() : memory_[rank]->host()) +
                                offset);
  }

  ExchangeControl Control(int r, bool device, bool flags, int64_t state, int64_t taken) {
    ExchangeControl c = {};
    c.state = At<uint32_t>(r, state, device);
    c.error = At<uint32_t>(r, o.error, device);
    c.limit_ns = 2000000000;
    c.rank = r;
    c.size = s.ranks;
    for (int p = 0; p < s.ranks && flags; ++p) {
      if (p == r) continue;
      c.taken_from[p] = At<uint32_t>(r, taken, device) + p;
      c.taken_to[p] = At<uint32_t>(p, taken, device) + r;
    }
    return c;
  }

  DispatchPlanParams Plan(int r, bool device, bool flags) {
    DispatchPlanParams p = {};
    p.control = Control(r, device, flags, o.rows_state, o.rows_taken);
    p.expert_TK = At<int32_t>(r, o.expert, device);
    p.weight_TK = At<float>(r, o.weight, device);
    p.slot_PT = At<int32_t>(r, o.slot, device);
    p.token_of_slot_PT = At<int32_t>(r, o.token_of_slot, device);
    p.place_TK = At<int32_t>(r, o.place, device);
    p.send_count_P = At<int32_t>(r, o.send_count, device);
    for (int to = 0; to < s.ranks; ++to) {
      p.table_to[to] = At<int32_t>(to, o.table, device) + r * kExchangeTableInts;
      p.choice_to[to] = At<int32_t>(to, o.choice, device) + r * Choices();
      p.weight_to[to] = At<float>(to, o.choice_weight, device) + r * Choices();
      if (flags) p.ready_to[to] = At<uint32_t>(to, o.ready, device) + r;
    }
    p.scratch = At<uint64_t>(r, o.scratch, device);
    p.num_tokens = s.tokens;
    p.num_experts = s.experts;
    p.top_k = s.top_k;
    return p;
  }

  ExchangeRowsParams Rows(int r, bool device, bool flags, int send, int receive) {
    ExchangeRowsParams p = {};
    p.control = Control(r, device, flags, o.rows_state, o.rows_taken);
    p.x_TD = At<nv_bfloat16>(r, o.x, device);
    p.token_of_slot_PT = At<int32_t>(r, o.token_of_slot, device);
    p.send_count_P = At<int32_t>(r, o.send_count, device);
    for (int i = 0; i < s.ranks; ++i) {
      p.rows_to[i] = At<nv_bfloat16>(i, o.rows_in, device) + r * Elements();
      p.rows_from[i] = At<nv_bfloat16>(r, o.rows_in, device) + i * Elements();
      p.keep[i] = At<nv_bfloat16>(r, o.keep, device) + i * Elements();
      p.table_from[i] = At<int32_t>(r, o.table, device) + i * kExchangeTableInts;
      p.choice_from[i] = At<int32_t>(r, o.choice, device) + i * Choices();
      p.weight_from[i] = At<float>(r, o.choice_weight, device) + i * Choices();
      if (!flags) continue;
      p.ready_from[i] = At<uint32_t>(r, o.ready, device) + i;
      p.flag_to[i] = At<uint32_t>(i, o.row_flag, device) + r * s.tokens;
      p.flag_from[i] = At<uint32_t>(r, o.row_flag, device) + i * s.tokens;
    }
    p.recv_count_P = At<int32_t>(r, o.recv_count, device);
    p.row_of_choice_PTK = At<int32_t>(r, o.row_of_choice, device);
    p.expert_offset_L1 = At<int32_t>(r, o.offset, device);
    p.weight_R = At<float>(r, o.weight_R, device);
    p.rows_RD = At<nv_bfloat16>(r, o.rows, device);
    p.num_tokens = s.tokens;
    p.hidden = s.hidden;
    p.top_k = s.top_k;
    p.num_local_experts = s.experts / s.ranks;
    p.send_blocks = send;
    p.receive_blocks = receive;
    p.build = true;
    return p;
  }

  // The rows as they came are summed again; weights stand for their gradients.
  ExchangeBackParams Back(int r, bool device, bool flags, int send, int receive) {
    ExchangeBackParams p = {};
    p.control = Control(r, device, flags, o.back_state, o.back_taken);
    p.rows_RD = At<nv_bfloat16>(r, o.rows, device);
    p.row_of_choice_PTK = At<int32_t>(r, o.row_of_choice, device);
    p.recv_count_P = At<int32_t>(r, o.recv_count, device);
    p.grad_weight_R = At<float>(r, o.weight_R, device);
    for (int i = 0; i < s.ranks; ++i) {
      p.back_to[i] = At<nv_bfloat16>(i, o.back_in, device) + r * Elements();
      p.back_from[i] = At<nv_bfloat16>(r, o.back_in, device) + i * Elements();
      p.back_weight_to[i] = At<float>(i, o.back_weight, device) + r * Choices();
      p.back_weight_from[i] = At<float>(r, o.back_weight, device) + i * Choices();
      if (!flags) continue;
      p.flag_to[i] = At<uint32_t>(i, o.back_flag, device) + r * s.tokens;
      p.flag_from[i] = At<uint32_t>(r, o.back_flag, device) + i * s.tokens;
    }
    p.slot_PT = At<int32_t>(r, o.slot, device);
    p.place_TK = At<int32_t>(r, o.place, device);
    if (s.ranks > 2) p.residual_TD = At<nv_bfloat16>(r, o.x, device);
    p.y_TD = At<nv_bfloat16>(r, o.y, device);
    p.grad_weight_TK = At<float>(r, o.grad_weight, device);
    p.num_tokens = s.tokens;
    p.hidden = s.hidden;
    p.top_k = s.top_k;
    p.send_blocks = send;
    p.receive_blocks = receive;
    return p;
  }

  void Reference() {
    for (int r = 0; r < s.ranks; ++r) reference::DispatchPlan(Plan(r, false, false));
    for (int r = 0; r < s.ranks; ++r) reference::ExchangeRows(Rows(r, false, false, 1, 0));
    for (int r = 0; r < s.ranks; ++r) reference::ExchangeRows(Rows(r, false, false, 0, 1));
    for (int r = 0; r < s.ranks; ++r) reference::ExchangeBack(Back(r, false, false, 1, 0));
    for (int r = 0; r < s.ranks; ++r) reference::ExchangeBack(Back(r, false, false, 0, 1));
  }

  void Compare() {
    for (int r = 0; r < s.ranks; ++r) {
      SCOPED_TRACE(r);
      const std::vector<unsigned char> device = memory_[r]->Download();
      const unsigned char* host = memory_[r]->host();
      const auto same = [&](int64_t at, int64_t size) {
        return std::memcmp(device.data() + at, host + at, size) == 0;
      };
      uint32_t error = 0;
      std::memcpy(&error, device.data() + o.error, 4);
      ASSERT_EQ(error, 0u);
      const int64_t choices = Choices() * 4, row = s.hidden * 2;
      EXPECT_TRUE(same(o.slot, s.ranks * s.tokens * 4));
      EXPECT_TRUE(same(o.place, choices));
      EXPECT_TRUE(same(o.send_count, s.ranks * 4));
      EXPECT_TRUE(same(o.recv_count, s.ranks * 4));
      EXPECT_TRUE(same(o.offset, (s.experts / s.ranks + 1) * 4));
      const int32_t rows = At<int32_t>(r, o.offset, false)[s.experts / s.ranks];
      EXPECT_TRUE(same(o.weight_R, rows * 4));
      EXPECT_TRUE(same(o.rows, rows * row));
      for (int i = 0; i < s.ranks; ++i) {
        const int64_t slots = At<int32_t>(r, o.recv_count, false)[i];
        EXPECT_TRUE(same(o.row_of_choice + i * choices, slots * s.top_k * 4)) << i;
        if (i == r) continue;
        EXPECT_TRUE(same(o.keep + i * Elements() * 2, slots * row)) << i;
      }
      EXPECT_TRUE(same(o.y, s.tokens * row));
      EXPECT_TRUE(same(o.grad_weight, choices));
    }
  }

  const Shape s;
  const Offsets o;

 private:
  int64_t Choices() const { return static_cast<int64_t>(s.tokens) * s.top_k; }
  int64_t Elements() const { return static_cast<int64_t>(s.tokens) * s.hidden; }
  std::vector<std::unique_ptr<Buffer<unsigned char>>> memory_;
};

class ExchangeTest : public testing::TestWithParam<Shape> {};

TEST_P(ExchangeTest, StepByStepEqualsTheReferenceToTheBit) {
  SWITCHYARD_REQUIRE_GPU();
  Group g(GetParam());
  for (int round = 0; round < 2; ++round) {
    g.Fill();
    g.Reference();
    const int ranks = g.s.ranks;
    for (int r = 0; r < ranks; ++r) ASSERT_EQ(DispatchPlan(g.Plan(r, true, false), nullptr), 0);
    for (int r = 0; r < ranks; ++r)
      ASSERT_EQ(ExchangeRows(g.Rows(r, true, false, 7, 0), nullptr), 0);
    for (int r = 0; r < ranks; ++r)
      ASSERT_EQ(ExchangeRows(g.Rows(r, true, false, 0, 9), nullptr), 0);
    for (int r = 0; r < ranks; ++r)
      ASSERT_EQ(ExchangeBack(g.Back(r, true, false, 7, 0), nullptr), 0);
    for (int r = 0; r < ranks; ++r)
      ASSERT_EQ(ExchangeBack(g.Back(r, true, false, 0, 9), nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    g.Compare();
  }
}

TEST_P(ExchangeTest, AllRanksAtOnceWithFlagsEqualTheReferenceToTheBit) {
  SWITCHYARD_REQUIRE_GPU();
  Group g(GetParam());
  std::vector<cudaStream_t> streams(g.s.ranks);
  for (cudaStream_t& stream : streams)
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  g.Fill();
  g.Reference();
  // Rounds follow each other without a wait; all blocks of all ranks fit on the GPU together.
  for (int round = 0; round < 5; ++round) {
    for (int r = 0; r < g.s.ranks; ++r) {
      ASSERT_EQ(DispatchPlan(g.Plan(r, true, true), streams[r]), cudaSuccess);
      ASSERT_EQ(ExchangeRows(g.Rows(r, true, true, 2, 3), streams[r]), cudaSuccess);
      ASSERT_EQ(ExchangeBack(g.Back(r, true, true, 3, 2), streams[r]), cudaSuccess);
    }
  }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  g.Compare();
  for (cudaStream_t stream : streams) cudaStreamDestroy(stream);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ExchangeTest,
                         testing::Values(Shape{2, 700, 32, 8, 256}, Shape{3, 130, 12, 4, 264},
                                         Shape{8, 129, 512, 22, 40}, Shape{2, 1, 2, 1, 8},
                                         Shape{4, 300, 8, 5, 64, true},
                                         Shape{2, 257, 16, 4, 128, true, 8}));

TEST(ExchangeFailureTest, APeerThatDoesNotComeEndsInAnErrorWordAndAnEmptyList) {
  SWITCHYARD_REQUIRE_GPU();
  Group g({2, 100, 8, 2, 64});
  g.Fill();
  ASSERT_EQ(DispatchPlan(g.Plan(0, true, true), nullptr), cudaSuccess);
  ExchangeRowsParams rows = g.Rows(0, true, true, 2, 3);
  rows.control.limit_ns = 50000000;
  ASSERT_EQ(ExchangeRows(rows, nullptr), cudaSuccess);
  ASSERT_EQ(ExchangeBack(g.Back(0, true, true, 2, 3), nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  uint32_t error = 0;
  int32_t offsets[5];
  ASSERT_EQ(cudaMemcpy(&error, g.At<void>(0, g.o.error, true), 4, cudaMemcpyDeviceToHost),
            cudaSuccess);
  ASSERT_EQ(cudaMemcpy(offsets, g.At<void>(0, g.o.offset, true), 20, cudaMemcpyDeviceToHost),
            cudaSuccess);
  EXPECT_EQ(error, static_cast<uint32_t>(ExchangeFailure::kChoicesLate) << 8 | 1);
  for (int32_t offset : offsets) EXPECT_EQ(offset, 0);
}

}  // namespace
}  // namespace switchyard::kernels
