// Names that become paths, shared-memory names and environment values.
#pragma once

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"

namespace switchyard::agent {

// True for 1 to 64 of [A-Za-z0-9_-]: safe as one component of a path.
inline bool IsSafeUid(const std::string& uid) {
  return !uid.empty() && uid.size() <= 64 &&
         std::all_of(uid.begin(), uid.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '-';
         });
}

}  // namespace switchyard::agent
