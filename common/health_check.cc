#include "common/health_check.h"

#include <nlohmann/json.hpp>

#include "absl/status/status.h"

namespace switchyard {

const char* HealthWord(Health health) {
  switch (health) {
    case Health::kOk:
      return "ok";
    case Health::kSkipped:
      return "skipped";
    case Health::kWarning:
      return "warning";
    case Health::kFailed:
      return "failed";
  }
  return "failed";
}

std::string HealthJson(const std::vector<HealthCheck>& checks) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const HealthCheck& check : checks) {
    list.push_back({{"name", check.name},
                    {"status", HealthWord(check.health)},
                    {"message", check.message},
                    {"fix", check.fix}});
  }
  const nlohmann::ordered_json document{{"checks", list}};
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::vector<HealthCheck>> ParseHealthJson(const std::string& text) {
  const absl::Status bad = absl::InvalidArgumentError("not a list of checks");
  const auto document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("checks")) return bad;
  std::vector<HealthCheck> checks;
  for (const auto& entry : document["checks"]) {
    if (!entry.is_object()) return bad;
    HealthCheck check;
    for (const char* key : {"name", "status", "message", "fix"}) {
      if (!entry.contains(key) || !entry[key].is_string()) return bad;
    }
    check.name = entry["name"];
    check.message = entry["message"];
    check.fix = entry["fix"];
    check.health = Health::kFailed;
    for (const Health one : {Health::kOk, Health::kSkipped, Health::kWarning}) {
      if (entry["status"] == HealthWord(one)) check.health = one;
    }
    checks.push_back(std::move(check));
  }
  return checks;
}

}  // namespace switchyard
