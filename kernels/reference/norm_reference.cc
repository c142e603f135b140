#include <algorithm>
#include <vector>

#include "kernels/reference/bf16.h"
#include "kernels/reference/reference.h"

namespace switchyard::kernels::reference {

void RmsNormForward(const RmsNormForwardParams& p) {
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    const int64_t row = t * p.hidden;
    double square = 0;
    for (int d = 0; d < p.hidden; ++d) square += std::pow(ToFloat(p.x_TD[row + d]), 2);
    const double rstd = 1 / std::sqrt(square / p.hidden + p.eps);
    for (int d = 0; d < p.hidden; ++d)
      p.y_TD[row + d] = ToBf16(ToFloat(p.x_TD[row + d]) * rstd * ToFloat(p.gamma_D[d]));
  }
}

void RmsNormBackward(const RmsNormBackwardParams& p) {
  std::vector<double> grad_gamma(p.hidden, 0.0);
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    const int64_t row = t * p.hidden;
    double square = 0, dot = 0;
    for (int d = 0; d < p.hidden; ++d) square += std::pow(ToFloat(p.x_TD[row + d]), 2);
    const double rstd = 1 / std::sqrt(square / p.hidden + p.eps);
    for (int d = 0; d < p.hidden; ++d) {
      const double n = ToFloat(p.x_TD[row + d]) * rstd, dy = ToFloat(p.grad_y_TD[row + d]);
      dot += dy * ToFloat(p.gamma_D[d]) * n;
      grad_gamma[d] += dy * n;
    }
    for (int d = 0; d < p.hidden; ++d) {
      const double n = ToFloat(p.x_TD[row + d]) * rstd;
      double dx =
          rstd * (ToFloat(p.grad_y_TD[row + d]) * ToFloat(p.gamma_D[d]) - n * dot / p.hidden);
      if (p.residual_gradient_TD != nullptr) dx += ToFloat(p.residual_gradient_TD[row + d]);
      p.grad_x_TD[row + d] = ToBf16(dx);
    }
  }
  for (int d = 0; d < p.hidden; ++d) p.grad_gamma_D[d] = ToBf16(grad_gamma[d]);
}

namespace {

// Normalised head, its rstd, and the rotation of element pair i.
struct Head {
  const nv_bfloat16* x;
  double rstd;
  double n(int i) const { return ToFloat(x[i]) * rstd; }
};

template <typename Params>
Head LoadHead(const Params& p, int64_t token, int head) {
  const int row_heads = p.num_heads + 2 * p.num_kv_heads;
  Head h{p.qkv_T + (token * row_heads + head) * p.head_dim, 0};
  double square = 0;
  for (int i = 0; i < p.head_dim; ++i)
    square += static_cast<double>(ToFloat(h.x[i])) * ToFloat(h.x[i]);
  h.rstd = 1 / std::sqrt(square / p.head_dim + p.eps);
  return h;
}

}  // namespace

void QkNormRopeForward(const QkNormRopeForwardParams& p) {
  const int heads = p.num_heads + p.num_kv_heads, half = p.head_dim / 2;
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    for (int h = 0; h < heads; ++h) {
      const Head head = LoadHead(p, t, h);
      const nv_bfloat16* gamma = h < p.num_heads ? p.q_gamma_C : p.k_gamma_C;
      nv_bfloat16* out = p.qk_T + (t * heads + h) * p.head_dim;
      for (int i = 0; i < half; ++i) {
        const float2 angle = p.rope_table[static_cast<int64_t>(p.position_T[t]) * half + i];
        const double a = head.n(i) * ToFloat(gamma[i]),
                     b = head.n(i + half) * ToFloat(gamma[i + half]);
        out[i] = ToBf16(a * angle.x - b * angle.y);
        out[i + half] = ToBf16(b * angle.x + a * angle.y);
      }
    }
  }
}

void QkNormRopeBackward(const QkNormRopeBackwardParams& p) {
  const int heads = p.num_heads + p.num_kv_heads, half = p.head_dim / 2;
  std::vector<double> grad_gamma[2] = {std::vector<double>(p.head_dim, 0.0),
                                       std::vector<double>(p.head_dim, 0.0)};
  std::vector<double> grad(p.head_dim);
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    for (int h = 0; h < heads; ++h) {
      const Head head = LoadHead(p, t, h);
      const bool is_query = h < p.num_heads;
      const nv_bfloat16* gamma = is_query ? p.q_gamma_C : p.k_gamma_C;
      const nv_bfloat16* in =
          is_query ? p.grad_query_T + t * p.grad_query_stride + h * p.head_dim
                   : p.grad_key_T + (t * p.num_kv_heads + h - p.num_heads) * p.head_dim;
      double dot = 0;
      for (int i = 0; i < half; ++i) {
        const float2 angle = p.rope_table[static_cast<int64_t>(p.position_T[t]) * half + i];
        grad[i] = ToFloat(in[i]) * angle.x + ToFloat(in[i + half]) * angle.y;
        grad[i + half] = ToFloat(in[i + half]) * angle.x - ToFloat(in[i]) * angle.y;
      }
      for (int i = 0; i < p.head_dim; ++i) {
        grad_gamma[is_query ? 0 : 1][i] += grad[i] * head.n(i);
        grad[i] *= ToFloat(gamma[i]);
        dot += grad[i] * head.n(i);
      }
      nv_bfloat16* out =
          p.grad_qkv_T + (t * (heads + p.num_kv_heads) + h) * static_cast<int64_t>(p.head_dim);
      for (int i = 0; i < p.head_dim; ++i) {
        out[i] = ToBf16(head.rstd * (grad[i] - head.n(i) * dot / p.head_dim));
      }
    }
    const int64_t values = static_cast<int64_t>(p.num_kv_heads) * p.head_dim;
    std::copy_n(p.grad_value_T + t * values, values,
                p.grad_qkv_T + (t + 1) * (heads + p.num_kv_heads) * p.head_dim - values);
  }
  for (int i = 0; i < p.head_dim; ++i) {
    p.grad_q_gamma_C[i] = ToBf16(grad_gamma[0][i]);
    p.grad_k_gamma_C[i] = ToBf16(grad_gamma[1][i]);
  }
}

}  // namespace switchyard::kernels::reference
