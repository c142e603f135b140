// Opaque tokens of paging and watching: a few fields, bound to the request they belong to.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::coordinator {

// `kind` and `binding` must be the same when it is read.
std::string MakeToken(const std::string& kind, const std::string& binding,
                      const std::vector<std::string>& fields);
// InvalidArgument naming `request_field` when it is not such a token of this request.
absl::StatusOr<std::vector<std::string>> ReadToken(const std::string& kind, const std::string& binding,
                                                   const std::string& token, size_t num_fields,
                                                   const std::string& request_field);
// Size of a page: `requested`, or `standard` for 0; InvalidArgument when negative; at most 1000.
absl::StatusOr<int> PageSize(int requested, int standard);

}  // namespace switchyard::coordinator
