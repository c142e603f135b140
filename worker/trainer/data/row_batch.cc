#include "worker/trainer/data/row_batch.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <vector>

namespace switchyard::trainer {
namespace {

constexpr int64_t kNoTarget = -100;

void CheckRows(const at::Tensor& tensor, const char* name, at::IntArrayRef sizes,
               at::ScalarType dtype) {
  TORCH_CHECK(tensor.sizes() == sizes && tensor.scalar_type() == dtype, name, " must be ", dtype,
              " of shape ", sizes, ", not ", tensor.scalar_type(), " of shape ", tensor.sizes());
}

// Starts of documents in T = B * S, and T: rows, breaks in the positions and the first padding of a
// row.
at::Tensor DocumentOffsets(const at::Tensor& position, const at::Tensor& valid, int64_t length) {
  const int64_t total = position.numel();
  const int64_t* p = position.const_data_ptr<int64_t>();
  const bool* v = valid.const_data_ptr<bool>();
  std::vector<int32_t> offsets;
  for (int64_t t = 0; t < total; ++t) {
    if (t % length == 0 || v[t] != v[t - 1] || (v[t] && p[t] != p[t - 1] + 1)) {
      offsets.push_back(static_cast<int32_t>(t));
    }
  }
  offsets.push_back(static_cast<int32_t>(total));
  return at::tensor(offsets, at::kInt);
}

}  // namespace

Batch MakeBatch(const RowBatch& rows, int64_t vocab_size) {
  TORCH_CHECK(rows.input_ids.defined() && rows.input_ids.dim() == 2 && rows.input_ids.numel() > 0,
              "input_ids must have the shape [sequences, tokens]");
  const auto sizes = rows.input_ids.sizes();
  CheckRows(rows.input_ids, "input_ids", sizes, at::kLong);
  CheckRows(rows.labels, "labels", sizes, at::kLong);
  Batch batch;
  batch.num_sequences = sizes[0];
  batch.sequence_length = sizes[1];
  const int64_t total = rows.input_ids.numel();
  TORCH_CHECK(total <= INT32_MAX, "a batch may have at most 2^31 - 1 tokens, not ", total);

  at::Tensor position = rows.position_ids;
  if (!position.defined()) position = at::arange(sizes[1], at::kLong).expand(sizes);
  CheckRows(position, "position_ids", sizes, at::kLong);
  at::Tensor valid = rows.valid;
  if (!valid.defined()) valid = at::ones(sizes, at::kBool);
  CheckRows(valid, "valid", sizes, at::kBool);

  TORCH_CHECK(rows.input_ids.min().item<int64_t>() >= 0 &&
                  rows.input_ids.max().item<int64_t>() < vocab_size,
              "input_ids must lie in 0 .. ", vocab_size - 1);
  TORCH_CHECK(position.min().item<int64_t>() >= 0, "position_ids must not be negative");
  at::Tensor target = at::full_like(rows.labels, kNoTarget);
  target.slice(1, 0, sizes[1] - 1).copy_(rows.labels.slice(1, 1));
  const at::Tensor is_target = target.ne(kNoTarget);
  TORCH_CHECK(target.ge(0)
                  .logical_and_(target.lt(vocab_size))
                  .logical_or_(is_target.logical_not())
                  .all()
                  .item<bool>(),
              "labels must be -100 or lie in 0 .. ", vocab_size - 1);

  batch.input_id_T = rows.input_ids.contiguous().view(-1);
  batch.target_T = target.view(-1);
  batch.position_T = position.contiguous().view(-1);
  batch.valid_T = valid.contiguous().view(-1);
  batch.document_offset = DocumentOffsets(batch.position_T, batch.valid_T, sizes[1]);
  batch.num_tokens = batch.valid_T.sum().item<int64_t>();
  batch.num_targets = is_target.sum().item<int64_t>();
  return batch;
}

}  // namespace switchyard::trainer
