#include "common/security/allowed_paths.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"

namespace switchyard::security {
namespace {

namespace fs = std::filesystem;

constexpr int kRaceRetries = 8;  // EAGAIN: something was renamed meanwhile

// Opens `relative` (never empty) beneath `root` without reading it; errno of the refusal otherwise.
int OpenBeneath(int root, const std::string& relative) {
  struct open_how how {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  for (int i = 0;; ++i) {
    const UniqueFd fd(
        static_cast<int>(::syscall(SYS_openat2, root, relative.c_str(), &how, sizeof(how))));
    if (fd.valid()) return 0;
    if (errno != EINTR && (errno != EAGAIN || i >= kRaceRetries)) return errno;
  }
}

// As OpenBeneath, of the longest part of `relative` that exists.
int OpenExistingBeneath(int root, fs::path relative) {
  for (;;) {
    if (relative.empty()) return 0;  // the root itself
    const int error = OpenBeneath(root, relative.string());
    if (error != ENOENT) return error;
    relative = relative.parent_path();
  }
}

std::string Normal(const std::string& path) {
  std::string text = fs::path(path).lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

absl::StatusOr<AllowedPaths> Make(const std::string& kind, const std::vector<std::string>& roots) {
  for (const std::string& root : roots) {
    std::error_code error;
    if (!fs::path(root).is_absolute() || !fs::is_directory(root, error)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", kind, "-root is \"", root,
                       "\"; give the absolute path of a directory that exists"));
    }
  }
  return AllowedPaths(kind, roots);
}

}  // namespace

AllowedPaths::AllowedPaths(std::string kind, std::vector<std::string> roots)
    : kind_(std::move(kind)) {
  for (const std::string& root : roots) roots_.push_back(Normal(root));
}

absl::Status AllowedPaths::Check(const std::string& path) const {
  if (roots_.empty()) return absl::OkStatus();
  const absl::Status outside = absl::PermissionDeniedError(absl::StrCat(
      "is \"", path, "\", outside of what this service may use; put it beneath ",
      absl::StrJoin(roots_, " or "), ", without links that lead out (--", kind_, "-root)"));
  // A NUL would end the name for the kernel, and ".." beyond what exists is nobody's to judge.
  const fs::path given(path);
  if (!given.is_absolute() || path.find('\0') != std::string::npos) return outside;
  for (const fs::path& part : given) {
    if (part == "..") return outside;
  }
  const std::string normal = Normal(path);
  for (const std::string& root : roots_) {
    const std::string prefix = root == "/" ? root : absl::StrCat(root, "/");
    if (normal != root && !absl::StartsWith(normal, prefix)) continue;
    const UniqueFd fd(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) continue;
    const std::string relative = normal == root ? "" : normal.substr(prefix.size());
    const int error = OpenExistingBeneath(fd.get(), relative);
    if (error == 0) return absl::OkStatus();
    if (error == ENOSYS) {
      return absl::UnimplementedError(
          absl::StrCat("--", kind_, "-root needs openat2, Linux 5.6 or newer"));
    }
    if (error != EXDEV && error != ELOOP) {
      return absl::PermissionDeniedError(
          absl::StrCat("is \"", path, "\", which cannot be opened: ", std::strerror(error)));
    }
  }
  return outside;
}

absl::StatusOr<PathPolicy> PathPolicy::Create(const std::vector<std::string>& model_roots,
                                              const std::vector<std::string>& data_roots,
                                              const std::vector<std::string>& output_roots) {
  const bool any = !model_roots.empty() || !data_roots.empty() || !output_roots.empty();
  const std::pair<const char*, const std::vector<std::string>&> kinds[] = {
      {"model", model_roots}, {"data", data_roots}, {"output", output_roots}};
  for (const auto& [kind, roots] : kinds) {
    if (any && roots.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", kind,
                       "-root is missing; with allowed directories for some kinds of "
                       "paths, give those of all: --model-root, --data-root, --output-root"));
    }
  }
  PathPolicy policy;
  SWITCHYARD_ASSIGN_OR_RETURN(policy.models, Make("model", model_roots));
  SWITCHYARD_ASSIGN_OR_RETURN(policy.data, Make("data", data_roots));
  SWITCHYARD_ASSIGN_OR_RETURN(policy.outputs, Make("output", output_roots));
  return policy;
}

}  // namespace switchyard::security
