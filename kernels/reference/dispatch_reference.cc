#include <algorithm>
#include <vector>

#include "kernels/reference/bf16.h"
#include "kernels/reference/reference.h"

namespace switchyard::kernels::reference {
namespace {

// What travels is private to the kernels, the layout of a choice too; here: expert * 2^22 + rank.
constexpr int kRankBits = 22;

// out = sum of the rows, in order and float32.
void SumRows(const std::vector<const nv_bfloat16*>& rows, int hidden, nv_bfloat16* out) {
  for (int d = 0; d < hidden; ++d) {
    float sum = 0;
    for (const nv_bfloat16* row : rows) sum += ToFloat(row[d]);
    out[d] = ToBf16(sum);
  }
}

void SumChoices(const ExchangeBackParams& p, int source, int64_t slot, nv_bfloat16* out) {
  std::vector<const nv_bfloat16*> rows;
  const int32_t* row = p.row_of_choice_PTK + (source * p.num_tokens + slot) * p.top_k;
  for (int k = 0; k < p.top_k; ++k) {
    if (row[k] >= 0) rows.push_back(p.rows_RD + static_cast<int64_t>(row[k]) * p.hidden);
  }
  SumRows(rows, p.hidden, out);
}

void BuildRows(const ExchangeRowsParams& p) {
  const int ranks = p.control.size;
  int32_t row = 0;
  std::vector<int32_t> first(p.num_local_experts * ranks);
  for (int l = 0; l < p.num_local_experts; ++l) {
    p.expert_offset_L1[l] = row;
    for (int s = 0; s < ranks; ++s) {
      first[l * ranks + s] = row;
      row += p.table_from[s][l];
    }
  }
  p.expert_offset_L1[p.num_local_experts] = row;
  for (int s = 0; s < ranks; ++s) {
    const int32_t slots = p.recv_count_P[s] = p.table_from[s][kMaxExchangeExperts];
    for (int64_t i = 0; i < static_cast<int64_t>(slots) * p.top_k; ++i) {
      const int32_t choice = p.choice_from[s][i];
      int32_t& to = p.row_of_choice_PTK[s * p.num_tokens * p.top_k + i];
      to = -1;
      if (choice < 0) continue;
      to = first[(choice >> kRankBits) * ranks + s] + (choice & ((1 << kRankBits) - 1));
      p.weight_R[to] = p.weight_from[s][i];
    }
  }
}

}  // namespace

void DispatchPlan(const DispatchPlanParams& p) {
  const int ranks = p.control.size, local = p.num_experts / ranks;
  std::vector<int32_t> rows(p.num_experts, 0);
  std::fill_n(p.send_count_P, ranks, 0);
  std::fill_n(p.slot_PT, ranks * p.num_tokens, -1);
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    for (int rank = 0; rank < ranks; ++rank) {
      const auto here = [&](int32_t e) { return e >= 0 && e / local == rank; };
      const int32_t* expert = p.expert_TK + t * p.top_k;
      if (std::none_of(expert, expert + p.top_k, here)) continue;
      const int32_t slot = p.send_count_P[rank]++;
      p.slot_PT[rank * p.num_tokens + t] = slot;
      p.token_of_slot_PT[rank * p.num_tokens + slot] = static_cast<int32_t>(t);
      for (int k = 0; k < p.top_k; ++k) {
        const int64_t to = static_cast<int64_t>(slot) * p.top_k + k;
        p.choice_to[rank][to] = -1;
        if (!here(expert[k])) continue;
        p.choice_to[rank][to] = expert[k] % local << kRankBits | rows[expert[k]]++;
        p.weight_to[rank][to] = p.weight_TK[t * p.top_k + k];
      }
    }
    for (int k = 0; k < p.top_k; ++k) {
      const int32_t e = p.expert_TK[t * p.top_k + k];
      int32_t& place = p.place_TK[t * p.top_k + k];
      place = -1;
      if (e < 0) continue;
      const int64_t row = e / local * p.num_tokens;
      place = static_cast<int32_t>(row + p.slot_PT[row + t]);
    }
  }
  for (int e = 0; e < p.num_experts; ++e) p.table_to[e / local][e % local] = rows[e];
  for (int rank = 0; rank < ranks; ++rank)
    p.table_to[rank][kMaxExchangeExperts] = p.send_count_P[rank];
}

void ExchangeRows(const ExchangeRowsParams& p) {
  const ExchangeControl& c = p.control;
  for (int to = 0; p.send_blocks > 0 && to < c.size; ++to) {
    for (int64_t slot = 0; to != c.rank && slot < p.send_count_P[to]; ++slot) {
      const int64_t token = p.token_of_slot_PT[to * p.num_tokens + slot];
      std::copy_n(p.x_TD + token * p.hidden, p.hidden, p.rows_to[to] + slot * p.hidden);
    }
  }
  if (p.receive_blocks == 0) return;
  if (p.build) BuildRows(p);
  for (int s = 0; s < c.size; ++s) {
    for (int64_t slot = 0; slot < p.recv_count_P[s]; ++slot) {
      const nv_bfloat16* row =
          s == c.rank ? p.x_TD + static_cast<int64_t>(p.token_of_slot_PT[s * p.num_tokens + slot]) *
                                     p.hidden
                      : p.rows_from[s] + slot * p.hidden;
      if (s != c.rank && p.keep[s] != nullptr)
        std::copy_n(row, p.hidden, p.keep[s] + slot * p.hidden);
      for (int k = 0; k < p.top_k; ++k) {
        const int64_t to = p.row_of_choice_PTK[(s * p.num_tokens + slot) * p.top_k + k];
        if (to >= 0) std::copy_n(row, p.hidden, p.rows_RD + to * p.hidden);
      }
    }
  }
}

void ExchangeBack(const ExchangeBackParams& p) {
  const ExchangeControl& c = p.control;
  for (int to = 0; p.send_blocks > 0 && to < c.size; ++to) {
    for (int64_t slot = 0; to != c.rank && slot < p.recv_count_P[to]; ++slot) {
      SumChoices(p, to, slot, p.back_to[to] + slot * p.hidden);
      for (int k = 0; p.grad_weight_R != nullptr && k < p.top_k; ++k) {
        const int32_t row = p.row_of_choice_PTK[(to * p.num_tokens + slot) * p.top_k + k];
        p.back_weight_to[to][slot * p.top_k + k] = row >= 0 ? p.grad_weight_R[row] : 0.0f;
      }
    }
  }
  std::vector<nv_bfloat16> own(p.hidden);
  for (int64_t t = 0; p.receive_blocks > 0 && t < p.num_tokens; ++t) {
    std::vector<const nv_bfloat16*> parts;
    if (p.residual_TD != nullptr) parts.push_back(p.residual_TD + t * p.hidden);
    for (int s = 0; s < c.size; ++s) {
      const int64_t slot = p.slot_PT[s * p.num_tokens + t];
      if (slot < 0) continue;
      if (s == c.rank) SumChoices(p, s, slot, own.data());
      parts.push_back(s == c.rank ? own.data() : p.back_from[s] + slot * p.hidden);
    }
    SumRows(parts, p.hidden, p.y_TD + t * p.hidden);
    for (int k = 0; p.grad_weight_TK != nullptr && k < p.top_k; ++k) {
      const int32_t place = p.place_TK[t * p.top_k + k];
      float& grad = p.grad_weight_TK[t * p.top_k + k];
      grad = 0;
      if (place < 0) continue;
      const int64_t s = place / p.num_tokens, at = place % p.num_tokens * p.top_k + k;
      grad = s == c.rank ? p.grad_weight_R[p.row_of_choice_PTK[s * p.num_tokens * p.top_k + at]]
                         : p.back_weight_from[s][at];
    }
  }
}

}  // namespace switchyard::kernels::reference
