#include "coordinator/service/tokens.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/rpc/violations.h"

namespace switchyard::coordinator {
namespace {

constexpr int kMaxPage = 1000;

}  // namespace

std::string MakeToken(const std::string& kind, const std::string& binding,
                      const std::vector<std::string>& fields) {
  return absl::WebSafeBase64Escape(absl::StrCat(kind, "|", binding, "|", absl::StrJoin(fields, "|")));
}

absl::StatusOr<std::vector<std::string>> ReadToken(const std::string& kind, const std::string& binding,
                                                   const std::string& token, size_t num_fields,
                                                   const std::string& request_field) {
  std::string text;
  std::vector<std::string> parts;
  if (absl::WebSafeBase64Unescape(token, &text)) parts = absl::StrSplit(text, '|');
  if (parts.size() != num_fields + 2 || parts[0] != kind || parts[1] != binding) {
    return rpc::InvalidArgument({{request_field,
                                  "is not a token of this request; pass it back unchanged, with the same "
                                  "parent and filter"}});
  }
  parts.erase(parts.begin(), parts.begin() + 2);
  return parts;
}

absl::StatusOr<int> PageSize(int requested, int standard) {
  if (requested < 0) {
    return rpc::InvalidArgument({{"page_size", absl::StrCat("is ", requested, "; must not be negative")}});
  }
  return requested == 0 ? standard : std::min(requested, kMaxPage);
}

}  // namespace switchyard::coordinator
