// Which paths a job may name: those beneath allowed directories, symbolic links included.
//
// A check opens the path with openat2 and RESOLVE_BENEATH, so the kernel itself refuses whatever
// leads out of the directory: "..", links, magic links of /proc. Links that stay inside are
// followed, as caches of models are made of them. No root at all allows everything: a coordinator
// and an agent that serve one user on loopback.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::security {

// Directories of one kind, and how the kind is called in errors and flags ("model" for
// --model-root).
class AllowedPaths {
 public:
  AllowedPaths() = default;
  // `roots` are absolute and exist when they are used.
  AllowedPaths(std::string kind, std::vector<std::string> roots);

  // PermissionDenied, naming the roots, unless `path`, absolute, lies beneath one of them. Of a
  // path that does not exist the part that does is judged, and the rest must not climb.
  absl::Status Check(const std::string& path) const;
  bool restricted() const { return !roots_.empty(); }

 private:
  std::string kind_;
  std::vector<std::string> roots_;  // normal, without trailing slash
};

struct PathPolicy {
  AllowedPaths models;
  AllowedPaths data;
  AllowedPaths outputs;

  // InvalidArgument when a root is not an absolute path of a directory. All empty: no restriction;
  // some empty: nothing of that kind is allowed, which is refused here, naming the flag.
  static absl::StatusOr<PathPolicy> Create(const std::vector<std::string>& model_roots,
                                           const std::vector<std::string>& data_roots,
                                           const std::vector<std::string>& output_roots);
  bool restricted() const { return models.restricted(); }
};

}  // namespace switchyard::security
