// Sums of chosen rows: the embedding's gradient and the local combine.
//
// Sums are taken in float32 in a fixed order, so they do not depend on threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "worker/trainer/model/arena.h"

namespace switchyard::trainer::ops {

// out_TD[t] = residual_TD[t] + sum over k of rows_RD[row_TK[t, k]]; entries of -1 add nothing, nor
// does an undefined residual. row_TK: int64. CPU only.
void SumChosenRows(const at::Tensor& rows_RD, const at::Tensor& row_TK,
                   const at::Tensor& residual_TD, at::Tensor out_TD);

// What an embedding's gradient is the sum of: row t belongs to id_T[t].
struct EmbeddingRows {
  at::Tensor grad_TD;
  at::Tensor id_T;          // int64
  int64_t skipped_id = -1;  // whose row gets nothing
};

// What is written of a table; elements are those of the flat table.
struct TablePart {
  at::Tensor table_VD;
  int64_t first_element = 0, end_element = 0;  // multiples of 8 on a GPU
  bool add = false;                            // to what is there
};

// Tokens in order of their id, equal ids in token order.
struct TokensById {
  at::Tensor id_T, token_T;  // int32
};

// On a GPU scratch is taken from the arena that Prepare was given (device_ops.h), and held until
// the caller's scope of that ends.
void SortTokens(const at::Tensor& id_T, int64_t vocab, const TokensById& out);

// table[v] = (add ? table[v] : 0) + the sum of grad_TD over the tokens with id v; rows of ids that
// do not occur stay as they are.
void AddEmbeddingGradient(const EmbeddingRows& rows, const TokensById& order,
                          const TablePart& part);
// Both; on a GPU `workspace` is Prepare's. `meanwhile`, which may make everything but the ids
// ready, runs beside the sorting.
void SumEmbeddingRows(const EmbeddingRows& rows, const TablePart& part, Arena& workspace,
                      const std::function<void()>& meanwhile);

}  // namespace switchyard::trainer::ops
