#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/reference/bf16.h"
#include "kernels/reference/reference.h"

namespace switchyard::kernels::reference {
namespace {

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<double> Softmax(const nv_bfloat16* logits, int n) {
  std::vector<double> p(n);
  double maximum = -INFINITY, sum = 0;
  for (int i = 0; i < n; ++i) maximum = std::max<double>(maximum, ToFloat(logits[i]));
  for (int i = 0; i < n; ++i) sum += p[i] = std::exp(ToFloat(logits[i]) - maximum);
  for (double& v : p) v /= sum;
  return p;
}

}  // namespace

void SwigluForward(const SwigluForwardParams& p) {
  const int64_t rows = p.num_rows != nullptr ? *p.num_rows : p.max_rows;
  for (int64_t r = 0; r < rows; ++r) {
    const double weight = p.weight_R != nullptr ? p.weight_R[r] : 1;
    for (int f = 0; f < p.ffn; ++f) {
      const double gate = ToFloat(p.gate_up_R2F[r * 2 * p.ffn + f]);
      const double up = ToFloat(p.gate_up_R2F[r * 2 * p.ffn + p.ffn + f]);
      p.h_RF[r * p.ffn + f] = ToBf16(gate * Sigmoid(gate) * up * weight);
    }
  }
}

void SwigluBackward(const SwigluBackwardParams& p) {
  const int64_t rows = p.num_rows != nullptr ? *p.num_rows : p.max_rows;
  for (int64_t r = 0; r < rows; ++r) {
    const double weight = p.weight_R != nullptr ? p.weight_R[r] : 1;
    double dot = 0;
    for (int f = 0; f < p.ffn; ++f) {
      const int64_t gate_at = r * 2 * p.ffn + f, up_at = gate_at + p.ffn;
      const double gate = ToFloat(p.gate_up_R2F[gate_at]), up = ToFloat(p.gate_up_R2F[up_at]);
      const double grad = ToFloat(p.grad_h_RF[r * p.ffn + f]), s = Sigmoid(gate);
      dot += grad * gate * s * up;
      p.grad_gate_up_R2F[gate_at] = ToBf16(grad * weight * up * s * (1 + gate * (1 - s)));
      p.grad_gate_up_R2F[up_at] = ToBf16(grad * weight * gate * s);
      if (p.h_RF != nullptr) p.h_RF[r * p.ffn + f] = ToBf16(gate * s * up * weight);
    }
    if (p.weight_R != nullptr) p.grad_weight_R[r] = static_cast<float>(dot);
  }
}

void RouterForward(const RouterForwardParams& p) {
  std::vector<double> sums(p.num_experts, 0.0);
  double entropy = 0;
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    if (p.valid_T != nullptr && !p.valid_T[t]) {
      std::fill_n(p.expert_TK + t * p.top_k, p.top_k, -1);
      std::fill_n(p.weight_TK + t * p.top_k, p.top_k, 0.0f);
      continue;
    }
    const std::vector<double> probability = Softmax(p.logits_TE + t * p.num_experts, p.num_experts);
    std::vector<int> order(p.num_experts);
    std::iota(order.begin(), order.end(), 0);
    // Equal logits have equal probabilities; stable order puts the lower expert first.
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return ToFloat(p.logits_TE[t * p.num_experts + a]) >
             ToFloat(p.logits_TE[t * p.num_experts + b]);
    });
    double total = 0;
    for (int k = 0; k < p.top_k; ++k) total += probability[order[k]];
    for (int k = 0; k < p.top_k; ++k) {
      p.expert_TK[t * p.top_k + k] = order[k];
      p.weight_TK[t * p.top_k + k] =
          ToFloat(ToBf16(p.renormalise ? probability[order[k]] / total : probability[order[k]]));
      ++p.count_E[order[k]];
    }
    for (int e = 0; e < p.num_experts; ++e) {
      sums[e] += probability[e];
      entropy -= probability[e] * std::log(probability[e]);
    }
  }
  if (p.entropy_sum != nullptr) *p.entropy_sum = static_cast<float>(entropy);
  if (p.probability_sum_E == nullptr) return;
  for (int e = 0; e < p.num_experts; ++e) p.probability_sum_E[e] = static_cast<float>(sums[e]);
}

void RouterBackward(const RouterBackwardParams& p) {
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    if (p.valid_T != nullptr && !p.valid_T[t]) {
      std::fill_n(p.grad_logits_TE + t * p.num_experts, p.num_experts, ToBf16(0));
      continue;
    }
    const std::vector<double> probability = Softmax(p.logits_TE + t * p.num_experts, p.num_experts);
    std::vector<double> grad(p.num_experts, 0.0);
    double total = 1, weighted = 0;
    if (p.renormalise) {
      total = 0;
      for (int k = 0; k < p.top_k; ++k) total += probability[p.expert_TK[t * p.top_k + k]];
      for (int k = 0; k < p.top_k; ++k) {
        weighted +=
            p.grad_weight_TK[t * p.top_k + k] * probability[p.expert_TK[t * p.top_k + k]] / total;
      }
    }
    for (int k = 0; k < p.top_k; ++k) {
      grad[p.expert_TK[t * p.top_k + k]] = (p.grad_weight_TK[t * p.top_k + k] - weighted) / total;
    }
    double dot = 0;
    for (int e = 0; e < p.num_experts; ++e) {
      if (p.balance_gradient_E != nullptr) grad[e] += p.balance_gradient_E[e];
      dot += grad[e] * probability[e];
    }
    for (int e = 0; e < p.num_experts; ++e) {
      p.grad_logits_TE[t * p.num_experts + e] = ToBf16(probability[e] * (grad[e] - dot));
    }
  }
}

void BuildRouting(const RoutingParams& p) {
  int32_t row = 0;
  for (int l = 0; l < p.num_local_experts; ++l) {
    p.expert_offset_L1[l] = row;
    for (int64_t i = 0; i < p.num_tokens * p.top_k; ++i) {
      if (p.expert_TK[i] != p.first_expert + l) continue;
      p.row_of_choice_TK[i] = row;
      p.weight_of_row_R[row++] = p.weight_TK[i];
    }
  }
  p.expert_offset_L1[p.num_local_experts] = row;
  for (int64_t i = 0; i < p.num_tokens * p.top_k; ++i) {
    const int local = p.expert_TK[i] - p.first_expert;
    if (local < 0 || local >= p.num_local_experts) p.row_of_choice_TK[i] = -1;
  }
}

void ScatterRows(const ScatterRowsParams& p) {
  for (int64_t i = 0; i < p.num_tokens * p.top_k; ++i) {
    if (p.row_of_choice_TK[i] < 0) continue;
    std::copy_n(p.x_TD + i / p.top_k * p.hidden, p.hidden,
                p.rows_RD + static_cast<int64_t>(p.row_of_choice_TK[i]) * p.hidden);
  }
}

void GatherChoices(const GatherChoicesParams& p) {
  for (int64_t i = 0; i < p.num_choices; ++i) {
    p.out_TK[i] = p.row_of_choice_TK[i] < 0 ? 0.0f : p.value_R[p.row_of_choice_TK[i]];
  }
}

void CombineRows(const CombineRowsParams& p) {
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    for (int d = 0; d < p.hidden; ++d) {
      double sum = p.residual_TD != nullptr ? ToFloat(p.residual_TD[t * p.hidden + d]) : 0;
      for (int k = 0; k < p.top_k; ++k) {
        const int64_t row = p.row_of_choice_TK[t * p.top_k + k];
        if (row >= 0) sum += ToFloat(p.rows_RD[row * p.hidden + d]);
      }
      p.y_TD[t * p.hidden + d] = ToBf16(sum);
    }
  }
}

}  // namespace switchyard::kernels::reference
