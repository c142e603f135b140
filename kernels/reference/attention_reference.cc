#include "kernels/reference/attention_reference.h"

#include <cmath>

#include "kernels/reference/bf16.h"

namespace switchyard::kernels::reference {
namespace {

// One query head against the keys of its document up to its own position.
class Row {
 public:
  Row(const AttentionOptions& o, const AttentionBuffers& b, int64_t begin, int64_t token, int head)
      : o_(o), b_(b), begin_(begin), token_(token), head_(head), probability_(token - begin + 1) {
    double maximum = -INFINITY, sum = 0;
    for (size_t i = 0; i < probability_.size(); ++i) {
      double dot = 0;
      for (int c = 0; c < o.head_dim; ++c) dot += Query(c) * Key(i, c);
      probability_[i] = dot / std::sqrt(static_cast<double>(o.head_dim));
      maximum = std::max(maximum, probability_[i]);
    }
    for (double& p : probability_) sum += p = std::exp(p - maximum);
    for (double& p : probability_) p /= sum;
  }

  const std::vector<double>& probability() const { return probability_; }
  int64_t kv_at(size_t i, int64_t stride, int c) const {
    return (begin_ + static_cast<int64_t>(i)) * stride +
           int64_t{head_ / (o_.num_heads / o_.num_kv_heads)} * o_.head_dim + c;
  }
  int64_t at(int64_t stride, int c) const {
    return token_ * stride + int64_t{head_} * o_.head_dim + c;
  }
  double Query(int c) const { return ToFloat(b_.query[at(o_.query_stride, c)]); }
  double Key(size_t i, int c) const { return ToFloat(b_.key[kv_at(i, o_.key_stride, c)]); }
  double Value(size_t i, int c) const { return ToFloat(b_.value[kv_at(i, o_.value_stride, c)]); }

 private:
  const AttentionOptions& o_;
  const AttentionBuffers& b_;
  int64_t begin_, token_;
  int head_;
  std::vector<double> probability_;
};

template <typename Fn>
void ForRows(const AttentionOptions& o, const std::vector<int32_t>& offset,
             const AttentionBuffers& b, Fn fn) {
  for (size_t d = 0; d + 1 < offset.size(); ++d) {
    for (int64_t t = offset[d]; t < offset[d + 1]; ++t) {
      for (int h = 0; h < o.num_heads; ++h) fn(Row(o, b, offset[d], t, h));
    }
  }
}

}  // namespace

void AttentionForward(const AttentionOptions& o, const std::vector<int32_t>& offset,
                      const AttentionBuffers& b) {
  ForRows(o, offset, b, [&](const Row& row) {
    for (int c = 0; c < o.head_dim; ++c) {
      double sum = 0;
      for (size_t i = 0; i < row.probability().size(); ++i)
        sum += row.probability()[i] * row.Value(i, c);
      b.out[row.at(o.out_stride, c)] = ToBf16(sum);
    }
  });
}

void AttentionBackward(const AttentionOptions& o, const std::vector<int32_t>& offset,
                       const AttentionBuffers& b) {
  const double scale = 1 / std::sqrt(static_cast<double>(o.head_dim));
  std::vector<double> grad_key(o.num_tokens * o.grad_key_stride),
      grad_value(o.num_tokens * o.grad_value_stride);
  ForRows(o, offset, b, [&](const Row& row) {
    const std::vector<double>& p = row.probability();
    std::vector<double> grad(p.size()), grad_query(o.head_dim);
    double mean = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      for (int c = 0; c < o.head_dim; ++c) {
        const double grad_out = ToFloat(b.grad_out[row.at(o.out_stride, c)]);
        grad[i] += grad_out * row.Value(i, c);
        grad_value[row.kv_at(i, o.grad_value_stride, c)] += p[i] * grad_out;
      }
      mean += p[i] * grad[i];
    }
    for (size_t i = 0; i < p.size(); ++i) {
      const double score = p[i] * (grad[i] - mean) * scale;
      for (int c = 0; c < o.head_dim; ++c) {
        grad_query[c] += score * row.Key(i, c);
        grad_key[row.kv_at(i, o.grad_key_stride, c)] += score * row.Query(c);
      }
    }
    for (int c = 0; c < o.head_dim; ++c)
      b.grad_query[row.at(o.query_stride, c)] = ToBf16(grad_query[c]);
  });
  for (int64_t t = 0; t < o.num_tokens; ++t) {
    for (int c = 0; c < o.num_kv_heads * o.head_dim; ++c) {
      b.grad_key[t * o.grad_key_stride + c] = ToBf16(grad_key[t * o.grad_key_stride + c]);
      b.grad_value[t * o.grad_value_stride + c] = ToBf16(grad_value[t * o.grad_value_stride + c]);
    }
  }
}

}  // namespace switchyard::kernels::reference
