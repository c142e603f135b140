// A job spec from a YAML or JSON file. Checks the file's form only; the coordinator checks its
// meaning.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

inline constexpr int64_t kMaxSpecBytes = 1 << 20;

// `directory`, absolute, is what relative paths in the spec are relative to. `source` names the
// text in messages. InvalidArgument with every problem at once (google.rpc.BadRequest).
absl::StatusOr<v1::JobSpec> ParseSpec(const std::string& text, const std::string& directory,
                                      const std::string& source);
// Reads `path`, "-" for standard input (then relative paths are relative to the working directory).
absl::StatusOr<v1::JobSpec> ReadSpecFile(const std::string& path);

}  // namespace switchyard::coordinator
