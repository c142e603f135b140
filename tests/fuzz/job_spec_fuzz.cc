#include "common/check.h"
#include "common/utf8.h"
#include "coordinator/cli/spec_file.h"
#include "coordinator/spec/validate.h"
#include "tests/fuzz/fuzz_targets.h"

namespace switchyard::fuzz {

namespace {

// A message with other bytes cannot be read by who gets it, and its errors are lost.
void CheckIsUtf8(const std::string& text) {
  SWITCHYARD_CHECK(ToUtf8(text) == text, "what is said of a spec is UTF-8");
}

}  // namespace

void JobSpec(absl::string_view bytes) {
  auto spec = coordinator::ParseSpec(std::string(bytes), "/specs", "input");
  if (!spec.ok()) {
    SWITCHYARD_CHECK(!spec.status().message().empty(), "a refusal says why");
    CheckIsUtf8(std::string(spec.status().message()));
    return;
  }
  const auto violations = coordinator::ValidateSpec(*spec);
  for (const auto& violation : violations) {
    SWITCHYARD_CHECK(!violation.field.empty() && violation.description.size() < 10000,
                     "a violation names its field and stays short");
    CheckIsUtf8(violation.field);
    CheckIsUtf8(violation.description);
  }
  if (!violations.empty()) return;
  coordinator::ApplyDefaults(*spec);
  SWITCHYARD_CHECK(coordinator::ValidateSpec(*spec).empty(), "defaults suit a valid spec");
}

}  // namespace switchyard::fuzz
