#include "kernels/attention.h"

#include <cudnn_frontend.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/attention_documents.h"

namespace switchyard::kernels {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

enum Uid : int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOut,
  kStats,
  kGradOut,
  kGradQuery,
  kGradKey,
  kGradValue,
  kLengthQ,
  kLengthKv,
  kRagged  // and the following RaggedTensor::kCount
};

// A graph that is being built for one shape.
class Builder {
 public:
  explicit Builder(const AttentionOptions& options)
      : o_(options), graph_(std::make_shared<fe::graph::Graph>()) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (!packed()) return;
    const int64_t b = o_.max_documents;
    length_q_ = Int32("length_q", kLengthQ, b);
    length_kv_ = Int32("length_kv", kLengthKv, b);
    for (int i = 0; i < static_cast<int>(RaggedTensor::kCount); ++i) {
      ragged_.push_back(Int32("ragged" + std::to_string(i), kRagged + i, b + 1));
    }
  }

  bool packed() const { return o_.max_documents > 0; }
  int64_t batch() const { return packed() ? o_.max_documents : o_.num_tokens / o_.sequence_length; }

  fe::graph::Tensor_attributes Rows(const char* name, Uid uid, int64_t heads, int64_t row_stride,
                                    RaggedTensor kind) const {
    auto tensor = fe::graph::Tensor_attributes();
    tensor.set_name(name).set_uid(uid).set_data_type(fe::DataType_t::BFLOAT16);
    tensor.set_dim({batch(), heads, o_.sequence_length, o_.head_dim})
        .set_stride({o_.sequence_length * row_stride, o_.head_dim, row_stride, 1});
    if (packed()) tensor.set_ragged_offset(ragged_[static_cast<int>(kind)]);
    return tensor;
  }
  Tensor Input(const char* name, Uid uid, int64_t heads, int64_t row_stride, RaggedTensor kind) {
    return graph_->tensor(Rows(name, uid, heads, row_stride, kind));
  }
  void Output(const Tensor& tensor, const char* name, Uid uid, int64_t heads, int64_t row_stride,
              RaggedTensor kind) {
    const auto rows = Rows(name, uid, heads, row_stride, kind);
    tensor->set_output(true).set_uid(uid).set_data_type(fe::DataType_t::BFLOAT16);
    tensor->set_dim(rows.get_dim()).set_stride(rows.get_stride());
    if (packed()) tensor->set_ragged_offset(ragged_[static_cast<int>(kind)]);
  }
  template <typename T>
  void Stats(T& tensor) const {
    tensor.set_uid(kStats).set_data_type(fe::DataType_t::FLOAT);
    const int64_t h = o_.num_heads, s = o_.sequence_length;
    tensor.set_dim({batch(), h, s, 1});
    if (packed()) {
      tensor.set_stride({s * h, 1, h, 1})
          .set_ragged_offset(ragged_[static_cast<int>(RaggedTensor::kStats)]);
    } else {
      tensor.set_stride({h * s, s, 1, 1});
    }
  }
  // Causal, and within documents.
  template <typename Attributes>
  Attributes Options() const {
    auto options = Attributes();
    options.set_attn_scale(1.0f / std::sqrt(static_cast<float>(o_.head_dim)))
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (packed())
      options.set_padding_mask(true).set_seq_len_q(length_q_).set_seq_len_kv(length_kv_);
    return options;
  }
  fe::graph::Graph& graph() { return *graph_; }

  // Null with `error` when cuDNN has no engine.
  std::shared_ptr<fe::graph::Graph> Finish(cudnnHandle_t handle, std::string* error) {
    const auto failed = [&](fe::error_t status) {
      if (!status.is_bad()) return false;
      *error = "cuDNN attention: " + status.get_message();
      return true;
    };
    if (failed(graph_->validate()) || failed(graph_->build_operation_graph(handle)) ||
        failed(graph_->create_execution_plans({fe::HeurMode_t::A})) ||
        failed(graph_->check_support(handle)) || failed(graph_->build_plans(handle))) {
      return nullptr;
    }
    return graph_;
  }

 private:
  Tensor Int32(const std::string& name, int64_t uid, int64_t n) {
    return graph_->tensor(fe::graph::Tensor_attributes()
                              .set_name(name)
                              .set_uid(uid)
                              .set_data_type(fe::DataType_t::INT32)
                              .set_dim({n, 1, 1, 1})
                              .set_stride({1, 1, 1, 1}));
  }

  const AttentionOptions& o_;
  std::shared_ptr<fe::graph::Graph> graph_;
  Tensor length_q_, length_kv_;
  std::vector<Tensor> ragged_;
};

std::shared_ptr<fe::graph::Graph> BuildForward(const AttentionOptions& o, cudnnHandle_t handle,
                                               std::string* error) {
  Builder b(o);
  const Tensor q = b.Input("query", kQuery, o.num_heads, o.query_stride, RaggedTensor::kQuery);
  const Tensor k = b.Input("key", kKey, o.num_kv_heads, o.key_stride, RaggedTensor::kKey);
  const Tensor v = b.Input("value", kValue, o.num_kv_heads, o.value_stride, RaggedTensor::kValue);
  auto options = b.Options<fe::graph::SDPA_attributes>();
  options.set_name("attention").set_generate_stats(true);
  auto [out, stats] = b.graph().sdpa(q, k, v, options);
  b.Output(out, "out", kOut, o.num_heads, o.out_stride, RaggedTensor::kOut);
  stats->set_output(true);
  b.Stats(*stats);
  return b.Finish(handle, error);
}

std::shared_ptr<fe::graph::Graph> BuildBackward(const AttentionOptions& o, cudnnHandle_t handle,
                                                std::string* error) {
  Builder b(o);
  const Tensor q = b.Input("query", kQuery, o.num_heads, o.query_stride, RaggedTensor::kQuery);
  const Tensor k = b.Input("key", kKey, o.num_kv_heads, o.key_stride, RaggedTensor::kKey);
  const Tensor v = b.Input("value", kValue, o.num_kv_heads, o.value_stride, RaggedTensor::kValue);
  const Tensor out = b.Input("out", kOut, o.num_heads, o.out_stride, RaggedTensor::kOut);
  const Tensor grad_out =
      b.Input("grad_out", kGradOut, o.num_heads, o.out_stride, RaggedTensor::kOut);
  auto stats_attributes = fe::graph::Tensor_attributes();
  stats_attributes.set_name("stats");
  b.Stats(stats_attributes);
  const Tensor stats = b.graph().tensor(stats_attributes);
  auto options = b.Options<fe::graph::SDPA_backward_attributes>();
  options.set_name("attention_backward").set_deterministic_algorithm(o.deterministic);
  // Without it the ragged backward takes 8 GB of workspace and twice the time.
  if (b.packed())
    options.set_max_total_seq_len_q(o.num_tokens).set_max_total_seq_len_kv(o.num_tokens);
  auto [grad_q, grad_k, grad_v] = b.graph().sdpa_backward(q, k, v, out, grad_out, stats, options);
  b.Output(grad_q, "grad_query", kGradQuery, o.num_heads, o.query_stride, RaggedTensor::kQuery);
  b.Output(grad_k, "grad_key", kGradKey, o.num_kv_heads, o.grad_key_stride, RaggedTensor::kGradKey);
  b.Output(grad_v, "grad_value", kGradValue, o.num_kv_heads, o.grad_value_stride,
           RaggedTensor::kGradValue);
  return b.Finish(handle, error);
}

class CudnnAttention final : public Attention {
 public:
  explicit CudnnAttention(const AttentionOptions& options) : options_(options) {
    layout_.max_documents = options.max_documents;
    const int64_t strides[] = {
        options.query_stride, options.key_stride,      options.value_stride,     options.out_stride,
        options.num_heads,    options.grad_key_stride, options.grad_value_stride};
    std::copy(std::begin(strides), std::end(strides), layout_.row_stride);
  }
  ~CudnnAttention() override {
    if (handle_ != nullptr) cudnnDestroy(handle_);
  }

  bool Build(std::string* error) {
    if (cudnnCreate(&handle_) != CUDNN_STATUS_SUCCESS) {
      *error = "cuDNN attention: no handle (is there a GPU, and does the driver match?)";
      return false;
    }
    forward_ = BuildForward(options_, handle_, error);
    if (forward_ != nullptr) backward_ = BuildBackward(options_, handle_, error);
    return backward_ != nullptr;
  }

  int64_t forward_workspace_bytes() const override { return forward_->get_workspace_size(); }
  int64_t backward_workspace_bytes() const override { return backward_->get_workspace_size(); }
  int64_t documents_bytes() const override {
    return options_.max_documents > 0 ? layout_.bytes() : 0;
  }

  cudaError_t FillDocuments(const int32_t* document_offset, int32_t num_documents, void* documents,
                            cudaStream_t stream) override {
    return FillAttentionDocuments(layout_, document_offset, num_documents, documents, stream);
  }

  bool Forward(const AttentionBuffers& b, void* workspace, cudaStream_t stream) override {
    Pointers pointers = Common(b);
    return Execute(*forward_, pointers, workspace, stream);
  }

  bool Backward(const AttentionBuffers& b, void* workspace, cudaStream_t stream) override {
    Pointers pointers = Common(b);
    pointers[kGradOut] = const_cast<nv_bfloat16*>(b.grad_out);
    pointers[kGradQuery] = b.grad_query;
    pointers[kGradKey] = b.grad_key;
    pointers[kGradValue] = b.grad_value;
    return Execute(*backward_, pointers, workspace, stream);
  }

 private:
  using Pointers = std::unordered_map<int64_t, void*>;

  Pointers Common(const AttentionBuffers& b) const {
    Pointers pointers = {{kQuery, const_cast<nv_bfloat16*>(b.query)},
                         {kKey, const_cast<nv_bfloat16*>(b.key)},
                         {kValue, const_cast<nv_bfloat16*>(b.value)},
                         {kOut, b.out},
                         {kStats, b.log_sum_exp}};
    if (options_.max_documents > 0) {
      void* base = const_cast<void*>(b.documents);
      pointers[kLengthQ] = pointers[kLengthKv] = layout_.lengths(base);
      for (int i = 0; i < static_cast<int>(RaggedTensor::kCount); ++i) {
        pointers[kRagged + i] = layout_.offsets(base, static_cast<RaggedTensor>(i));
      }
    }
    return pointers;
  }

  bool Execute(fe::graph::Graph& graph, Pointers& pointers, void* workspace, cudaStream_t stream) {
    if (cudnnSetStream(handle_, stream) != CUDNN_STATUS_SUCCESS) return false;
    return graph.execute(handle_, pointers, workspace).is_good();
  }

  AttentionOptions options_;
  AttentionDocumentsLayout layout_;
  cudnnHandle_t handle_ = nullptr;
  std::shared_ptr<fe::graph::Graph> forward_, backward_;
};

// What is wrong with the options; empty when nothing is.
std::string Problem(const AttentionOptions& o) {
  if (o.num_heads <= 0 || o.num_kv_heads <= 0 || o.num_heads % o.num_kv_heads != 0) {
    return "num_kv_heads must divide num_heads";
  }
  if (o.head_dim != 32 && o.head_dim != 64 && o.head_dim != 128)
    return "head_dim must be 32, 64 or 128";
  if (o.sequence_length <= 0 || o.num_tokens <= 0)
    return "sequence_length and num_tokens must be positive";
  if (o.max_documents == 0 && o.num_tokens % o.sequence_length != 0) {
    return "num_tokens must be a multiple of sequence_length";
  }
  if (o.max_documents > 0) {
    const int64_t row = std::max(
        int64_t{o.num_heads} * o.head_dim,
        o.num_heads / o.num_kv_heads * std::max<int64_t>(o.grad_key_stride, o.grad_value_stride));
    const int64_t most = ((int64_t{1} << 32) - 1) / (4 * row);
    if (o.num_tokens > most) {
      return "num_tokens is " + std::to_string(o.num_tokens) +
             ", too many for cuDNN's 32-bit offsets: packed documents of this shape take at most " +
             std::to_string(most);
    }
  }
  for (const int64_t stride : {o.query_stride, o.key_stride, o.value_stride, o.out_stride,
                               o.grad_key_stride, o.grad_value_stride}) {
    if (stride < o.head_dim || stride % 8 != 0)
      return "row strides must be multiples of 8 and hold a row";
    if (o.max_documents > 0 && stride * o.num_tokens > INT32_MAX) {
      return "num_tokens times a row stride exceeds the 32-bit offsets of packed documents";
    }
  }
  return "";
}

}  // namespace

std::unique_ptr<Attention> Attention::Create(const AttentionOptions& options, std::string* error) {
  *error = Problem(options);
  if (!error->empty()) return nullptr;
  auto attention = std::make_unique<CudnnAttention>(options);
  if (!attention->Build(error)) return nullptr;
  return attention;
}

}  // namespace switchyard::kernels
