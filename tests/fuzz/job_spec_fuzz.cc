#include "common/check.h"
#include "coordinator/cli/spec_file.h"
#include "coordinator/spec/validate.h"
#include "tests/fuzz/fuzz_targets.h"

namespace switchyard::fuzz {

void JobSpec(absl::string_view bytes) {
  auto spec = coordinator::ParseSpec(std::string(bytes), "/specs", "input");
  if (!spec.ok()) {
    SWITCHYARD_CHECK(!spec.status().message().empty(), "a refusal says why");
    return;
  }
  const auto violations = coordinator::ValidateSpec(*spec);
  for (const auto& violation : violations) {
    SWITCHYARD_CHECK(!violation.field.empty() && violation.description.size() < 10000,
                     "a violation names its field and stays short");
  }
  if (!violations.empty()) return;
  coordinator::ApplyDefaults(*spec);
  SWITCHYARD_CHECK(coordinator::ValidateSpec(*spec).empty(), "defaults suit a valid spec");
}

}  // namespace switchyard::fuzz
