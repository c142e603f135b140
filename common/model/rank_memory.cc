#include "common/model/rank_memory.h"

#include <algorithm>

#include "common/model/cuda_dispatch_window.h"
#include "common/model/packed_attention.h"
#include "common/model/parameter_list.h"

namespace switchyard {
namespace {

constexpr int64_t kAlignment = 64;  // of every tensor in an arena
constexpr int64_t kFloat = 4;
constexpr int64_t kInt = 4;
constexpr int64_t kInt64 = 8;
constexpr int64_t kSortScratch = 64;  // a token's id and place, by CUB: two of each, rounded up

// Bytes whose sums and products stop at kTooManyBytes.
struct Bytes {
  int64_t value = 0;
  Bytes operator+(Bytes other) const { return {std::min(value + other.value, kTooManyBytes)}; }
  Bytes& operator+=(Bytes other) { return *this = *this + other; }
};

Bytes Max(Bytes a, Bytes b) { return {std::max(a.value, b.value)}; }

// One tensor as an arena hands it out.
Bytes Tensor(std::initializer_list<int64_t> sizes, int64_t element) {
  __int128 product = element;
  for (int64_t size : sizes) product = std::min<__int128>(product * size, kTooManyBytes);
  const int64_t bytes = static_cast<int64_t>(product);
  return {std::min((bytes + kAlignment - 1) / kAlignment * kAlignment, kTooManyBytes)};
}

// The sizes that everything below is made of; letters as in worker/trainer/shapes.h.
struct Sizes {
  int64_t T, S, D, H, G, C, E, K, L, F, I, V;
  int64_t element;       // bytes of a parameter or activation
  int64_t row_capacity;  // rows whose gate/up is at hand at once
  int64_t max_rows;
  int64_t chunk;  // rows of a logits chunk
  int64_t ep;
  bool cuda;
  SavedParts saved;
};

Sizes MakeSizes(const RankMemoryInput& in, ActivationMemory activations) {
  const ModelShape& m = in.model;
  Sizes s{};
  // More tokens than this exceed any memory; the bound keeps the products below exact.
  constexpr int64_t kMaxTokens = int64_t{1} << 31;
  const __int128 tokens = static_cast<__int128>(in.micro_batch_sequences) * in.sequence_length;
  s.T = static_cast<int64_t>(std::min<__int128>(tokens, kMaxTokens));
  s.S = in.sequence_length;
  s.D = m.hidden_size;
  s.H = m.num_heads;
  s.G = m.num_kv_heads;
  s.C = m.head_dim;
  s.E = m.num_experts;
  s.L = m.num_experts / in.expert_parallel;
  s.K = m.num_moe_layers() > 0 ? m.experts_per_token : 0;
  s.F = m.moe_intermediate_size;
  s.I = m.intermediate_size;
  s.V = m.vocab_size;
  s.element = in.precision == Precision::kFloat32 ? 4 : 2;
  s.ep = in.expert_parallel;
  s.cuda = in.device == DeviceKind::kCuda;
  s.saved = SavedUnder(activations);
  s.max_rows = in.expert_parallel * s.T * std::min(s.K, s.L);
  // Without expert parallelism every routing has the same number of rows. With it a quarter is
  // allowed for imbalance; a layer that gets more recomputes gate/up of the rest instead of saving
  // it. Two ranks with GPUs save for the worst, which is twice the even share: without a rest there
  // is nothing to launch for it.
  const bool saves_all = in.expert_parallel == 1 || (s.cuda && in.expert_parallel == 2);
  s.row_capacity = saves_all ? s.max_rows : std::min(s.max_rows, s.T * s.K + s.T * s.K / 4);
  s.chunk = std::min<int64_t>(s.T, in.device == DeviceKind::kCpu ? 1024 : 4096);
  return s;
}

// Scratch of the other kernels: partial sums by block, and routing's counts by run of tokens.
Bytes KernelScratch(const Sizes& s) { return {(int64_t{24} << 20) + 64 * s.T}; }

Bytes If(bool condition, Bytes bytes) { return condition ? bytes : Bytes{}; }

Bytes Hidden(const Sizes& s) { return Tensor({s.T, s.D}, s.element); }

// Queries, keys and values before norm and rope.
Bytes Qkv(const Sizes& s) { return Tensor({s.T, (s.H + 2 * s.G) * s.C}, s.element); }

Bytes SavedAttention(const Sizes& s) {
  return Hidden(s) +                             // residual input
         Tensor({s.T, s.H * s.C}, s.element) +   // attention output
         Tensor({s.H, s.T}, kFloat) +            // log-sum-exp
         If(s.saved.layer, Qkv(s) + Hidden(s));  // and the residual between attention and FFN
}

// What a dispatcher keeps of one layer's routing: on CPU outside the arenas.
Bytes Routing(const Sizes& s) {
  if (!s.cuda) return Tensor({s.row_capacity}, kInt64 + kFloat) + Tensor({s.T, s.K}, kInt64);
  const Bytes sorted = Tensor({s.L + 1}, kInt) + Tensor({s.max_rows}, kFloat);
  if (s.ep == 1) return sorted + Tensor({s.T, s.K}, kInt);
  return sorted + Tensor({s.ep, s.T}, kInt) +  // slot of each token at each destination
         Tensor({s.T, s.K}, kInt) +            // destination of each choice
         Tensor({s.ep * s.T, s.K}, kInt) +     // row of each received choice
         Tensor({s.ep}, kInt) + Tensor({s.ep}, kInt) + Tensor({s.ep, s.T}, kInt) +  // and back
         Tensor({(s.ep - 1) * s.T, s.D}, s.element);  // rows of other ranks
}

// The routed rows and the normed tokens that they were made of.
Bytes Rows(const Sizes& s) { return Tensor({s.max_rows, s.D}, s.element) + Hidden(s); }

Bytes SavedMoe(const Sizes& s) {
  return Tensor({s.T, s.E}, s.element) +               // router logits
         Tensor({s.T, s.K}, s.cuda ? kInt : kInt64) +  // choices
         Tensor({s.T, s.K}, kFloat) +                  // and their weights
         If(s.saved.gate_up, Tensor({s.row_capacity, 2 * s.F}, s.element)) +
         If(s.saved.layer && s.cuda, Routing(s)) + If(s.saved.rows, Rows(s));
}

Bytes SavedDense(const Sizes& s) { return If(s.saved.gate_up, Tensor({s.T, 2 * s.I}, s.element)); }

Bytes AttentionScratch(const Sizes& s) { return Tensor({s.T, s.H * s.C}, kAttentionScratch); }

Bytes AttentionBackward(const Sizes& s) {
  return Hidden(s) + If(!s.saved.layer, Qkv(s)) +       // normed input, its projections
         Tensor({s.T, (s.H + s.G) * s.C}, s.element) +  // q, k after norm and rope
         Tensor({s.T, s.H * s.C}, s.element) +          // gradient of the attention output
         Qkv(s) + Hidden(s) +                           // gradients of qkv and the normed input
         If(s.cuda, Tensor({s.T, (s.H + s.G) * s.C}, s.element) +  // gradient of q
                        Tensor({s.T, s.G * s.C}, s.element) +      // of k
                        Tensor({s.T, s.G * s.C}, s.element) +      // and of v
                        AttentionScratch(s));
}

Bytes MoeBackward(const Sizes& s) {
  const Bytes hidden = Tensor({s.cuda ? s.max_rows : s.row_capacity, s.F}, s.element);
  // On a GPU the gradient of gate/up is of all rows at once, since nobody knows how many there are.
  const bool gate_up = !s.saved.gate_up || (s.cuda && s.row_capacity < s.max_rows);
  return If(!s.saved.layer, Hidden(s) + If(s.cuda, Routing(s))) +  // residual, new routing
         If(!s.saved.rows, Rows(s)) +                              // normed input, routed rows
         If(gate_up, Tensor({s.cuda ? s.max_rows : s.row_capacity, 2 * s.F}, s.element)) +
         Hidden(s) + Tensor({s.max_rows, s.D}, s.element) +  // gradients of normed input and rows
         Tensor({s.max_rows}, kFloat) +                      // gradients of router weights, by row
         Tensor({s.T, s.K}, kFloat) +                        // and by choice
         hidden + hidden;                                    // activations and their gradient
}

Bytes DenseBackward(const Sizes& s) {
  const Bytes hidden = Tensor({s.T, s.I}, s.element);
  return If(!s.saved.layer, Hidden(s)) + If(!s.saved.gate_up, Tensor({s.T, 2 * s.I}, s.element)) +
         Hidden(s) + Hidden(s) + hidden + hidden;
}

// Rows with targets, normed, and the gradient of that; a float32 sum of the head's gradient when
// bfloat16 chunks add up.
Bytes Head(const Sizes& s, bool sum_in_float) {
  const Bytes rows = Tensor({s.T, s.D}, s.element);
  return rows + rows + rows + (sum_in_float ? Tensor({s.V, s.D}, kFloat) : Bytes{});
}

// The order in which rows of the embedding's gradient are summed, parts of sums, and the rows of
// other ranks.
Bytes EmbeddingBackward(const Sizes& s, int64_t ranks) {
  const Bytes order = Tensor({ranks, s.T}, kInt);
  const Bytes scratch = Tensor({ranks, s.T}, kSortScratch) +
                        Tensor({2, ranks * s.T / kEmbeddingPiece + 1, s.D}, kFloat);
  return order + order + If(s.cuda, scratch) +
         If(ranks > 1, Tensor({ranks, s.T, s.D}, s.element) + Tensor({ranks, s.T}, kInt64));
}

RankMemory Compute(const RankMemoryInput& in, ActivationMemory activations) {
  const Sizes s = MakeSizes(in, activations);
  const ModelShape& m = in.model;
  const bool accumulates = in.gradient_accumulation > 1;
  const bool bfloat16 = in.precision == Precision::kBfloat16;
  RankMemory out;
  out.max_rows = s.max_rows;
  out.activations = activations;
  out.row_capacity = s.row_capacity;
  out.logits_chunk_rows = s.chunk;
  out.gathers_embedding_rows = GathersEmbeddingRows(in);

  // Parameters by block, as the registry lays them out.
  const int64_t edp = in.ranks / in.expert_parallel;
  const int64_t optimizer_element =
      in.optimizer == OptimizerProfile::kCompact ? 4 : (bfloat16 ? 10 : 8);
  std::vector<int64_t> replicated(m.num_layers), expert(m.num_layers);
  int64_t embedding = 0, head = 0;
  for (const ParameterSpec& p : ListParameters(m, s.L)) {
    (p.layer == kOuterLayer  ? embedding
     : p.layer == kHeadLayer ? head
     : p.expert              ? expert[p.layer]
                             : replicated[p.layer]) += p.numel();
  }
  const int64_t outer = PaddedBlock(embedding, in.ranks) + PaddedBlock(head, in.ranks);
  int64_t total = outer, shards = outer / in.ranks;
  std::vector<Bytes> layer_gradient(m.num_layers);
  for (int64_t i = 0; i < m.num_layers; ++i) {
    const int64_t r = PaddedBlock(replicated[i], in.ranks), e = PaddedBlock(expert[i], edp);
    total += r + e;
    shards += r / in.ranks + e / edp;
    layer_gradient[i] = Tensor({r}, s.element) + Tensor({e}, s.element);
  }
  out.parameters = Tensor({total}, s.element).value;
  out.optimizer = Tensor({shards}, optimizer_element).value;

  // Slots: activations of layer i, later gradients of layer i - 1.
  Bytes saved, extra;
  // On CPU outside the arenas: of every MoE layer, or of the one whose turn it is.
  if (!s.cuda && !s.saved.layer && m.num_moe_layers() > 0) saved += Routing(s);
  for (int64_t i = 0; i <= m.num_layers; ++i) {
    Bytes content = Hidden(s);  // the last slot: the last layer's output
    if (i < m.num_layers) {
      content = SavedAttention(s) + (m.is_moe_layer[i] ? SavedMoe(s) : SavedDense(s));
      if (m.is_moe_layer[i] && !s.cuda && s.saved.layer) saved += Routing(s);
    }
    const Bytes gradient = i > 0 && !accumulates ? layer_gradient[i - 1] : Bytes{};
    const Bytes slot = Max(content, gradient);
    out.slot_bytes.push_back(slot.value);
    saved += content;
    extra += Bytes{slot.value - content.value};
  }
  out.saved_activations = saved.value;
  if (accumulates) out.persistent_gradient_bytes = Tensor({total}, kFloat).value;
  if (!accumulates) out.outer_gradient_bytes = Tensor({outer}, s.element).value;
  extra += Bytes{out.persistent_gradient_bytes} + Bytes{out.outer_gradient_bytes};
  out.gradients = extra.value;

  // Workspace: rotary tables and the residual gradient all along, then the largest phase.
  const bool sum_in_float = bfloat16 && !accumulates && s.T > s.chunk;
  Bytes phase = Max(AttentionBackward(s), Head(s, sum_in_float));
  phase = Max(phase, EmbeddingBackward(s, out.gathers_embedding_rows ? in.ranks : 1));
  if (m.num_moe_layers() > 0) phase = Max(phase, MoeBackward(s));
  if (m.num_moe_layers() < m.num_layers) phase = Max(phase, DenseBackward(s));
  const Bytes table = Tensor({s.T, s.C / 2}, kFloat);
  Bytes workspace = table + table + Tensor({s.T, s.D}, s.element) + phase;
  if (s.cuda) workspace += KernelScratch(s);
  if (bfloat16 && accumulates) workspace += Tensor({LargestGradientMatrix(m)}, s.element);
  out.workspace = workspace.value;
  out.logits = Tensor({s.chunk, s.V}, s.element).value;
  if (s.cuda && in.deterministic) {
    const DocumentClass planned =
        ClassOfDocuments(2 * in.micro_batch_sequences, in.sequence_length, in.sequence_length);
    out.deterministic_scratch = DeterministicAttentionBytes(
        DeterministicScratchBytes(planned, m.num_heads), Tensor({s.T, s.H, s.C}, 1).value);
  }
  if (in.expert_parallel > 1) {
    const Bytes bound = Tensor({in.expert_parallel, s.T, s.D}, 2 * s.element) +
                        Tensor({in.expert_parallel, s.T, s.K}, kInt64 + kFloat);
    const DispatchWindowShape window = {in.expert_parallel, s.T, s.D, s.K, s.element};
    out.windows = bound.value >= kTooManyBytes ? kTooManyBytes
                  : s.cuda                     ? CudaDispatchWindowLayout(window).bytes
                                               : DispatchWindowLayout(window).bytes;
  }
  return out;
}

}  // namespace

int64_t DeterministicAttentionBytes(int64_t documents_bytes, int64_t elements) {
  const Bytes wanted = Bytes{documents_bytes} + Tensor({elements}, kDeterministicAttentionScratch);
  return wanted.value > Tensor({elements}, kAttentionScratch).value ? wanted.value : 0;
}

bool GathersEmbeddingRows(const RankMemoryInput& in) {
  const __int128 rows =
      static_cast<__int128>(in.ranks) * in.micro_batch_sequences * in.sequence_length;
  return in.ranks > 1 && in.gradient_accumulation == 1 && !in.model.tie_word_embeddings &&
         2 * rows <= in.model.vocab_size;
}

int64_t RankMemory::Total() const {
  return (Bytes{parameters} + Bytes{gradients} + Bytes{optimizer} + Bytes{saved_activations} +
          Bytes{workspace} + Bytes{windows} + Bytes{logits} + Bytes{deterministic_scratch})
      .value;
}

RankMemory ComputeRankMemory(const RankMemoryInput& in) {
  if (in.activations) return Compute(in, *in.activations);
  // Gradients come where the activations of all layers but the first lay.
  const RankMemory all = Compute(in, ActivationMemory::kSaveAll);
  const RankMemory base = Compute(in, ActivationMemory::kRecomputeRows);
  const Bytes first = Rows(MakeSizes(in, ActivationMemory::kSaveAll));
  return all.Total() <= base.Total() + first.value ? all : base;
}

int64_t ExchangeRoutingBytes(const DispatchWindowShape& shape, int64_t num_experts,
                             int64_t tokens) {
  Sizes s{};
  s.T = tokens;
  s.D = shape.hidden_size;
  s.K = shape.experts_per_token;
  s.L = num_experts / shape.expert_parallel;
  s.element = shape.element_bytes;
  s.ep = shape.expert_parallel;
  s.max_rows = s.ep * s.T * std::min(s.K, s.L);
  s.cuda = true;
  return Routing(s).value;
}

}  // namespace switchyard
