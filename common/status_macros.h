// Early return on absl::Status errors.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SWITCHYARD_CONCAT_INNER(a, b) a##b
#define SWITCHYARD_CONCAT(a, b) SWITCHYARD_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr`, an absl::Status, is not OK.
#define SWITCHYARD_RETURN_IF_ERROR(expr)                              \
  do {                                                                \
    if (absl::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)

// `lhs` takes the value of `expr`, an absl::StatusOr, or the enclosing function returns its status.
#define SWITCHYARD_ASSIGN_OR_RETURN(lhs, expr) \
  SWITCHYARD_ASSIGN_OR_RETURN_IMPL(SWITCHYARD_CONCAT(status_or_, __LINE__), lhs, expr)
#define SWITCHYARD_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                     \
  if (!tmp.ok()) return tmp.status();                    \
  lhs = std::move(tmp).value()
