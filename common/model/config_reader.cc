#include "common/model/config_reader.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard {
namespace {

// The value as it stands in the file, shortened.
std::string Show(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

const nlohmann::json* ConfigReader::Take(const std::string& key) {
  taken_.insert(key);
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool ConfigReader::Has(const std::string& key) const {
  const auto it = object_.find(key);
  return it != object_.end() && !it->is_null();
}

const nlohmann::json& ConfigReader::Raw(const std::string& key) {
  static const nlohmann::json* const null = new nlohmann::json();
  const nlohmann::json* value = Take(key);
  return value == nullptr ? *null : *value;
}

int64_t ConfigReader::Integer(const std::string& key, int64_t fallback, int64_t minimum,
                              int64_t maximum) {
  const nlohmann::json* value = Take(key);
  if (value == nullptr) return fallback;
  // An unsigned number beyond int64 would wrap in get<int64_t>().
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
  if (!fits || value->get<int64_t>() < minimum || value->get<int64_t>() > maximum) {
    Violation(key, absl::StrFormat("must be an integer from %d to %d", minimum, maximum));
    return fallback;
  }
  return value->get<int64_t>();
}

double ConfigReader::Number(const std::string& key, double fallback, double minimum,
                            double maximum) {
  const nlohmann::json* value = Take(key);
  if (value == nullptr) return fallback;
  if (!value->is_number() || !std::isfinite(value->get<double>()) ||
      value->get<double>() < minimum || value->get<double>() > maximum) {
    Violation(key, absl::StrFormat("must be a number from %g to %g", minimum, maximum));
    return fallback;
  }
  return value->get<double>();
}

bool ConfigReader::Boolean(const std::string& key, bool fallback) {
  const nlohmann::json* value = Take(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    Violation(key, "must be true or false");
    return fallback;
  }
  return value->get<bool>();
}

std::string ConfigReader::Text(const std::string& key, const std::string& fallback) {
  const nlohmann::json* value = Take(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    Violation(key, "must be a string");
    return fallback;
  }
  return value->get<std::string>();
}

std::vector<int64_t> ConfigReader::Integers(const std::string& key) {
  const nlohmann::json* value = Take(key);
  std::vector<int64_t> out;
  if (value == nullptr) return out;
  bool good = value->is_array();
  if (good) {
    for (const nlohmann::json& item : *value) good = good && item.is_number_integer();
  }
  if (!good) {
    Violation(key, "must be a list of integers");
    return out;
  }
  for (const nlohmann::json& item : *value) out.push_back(item.get<int64_t>());
  return out;
}

void ConfigReader::Ignore(std::initializer_list<const char*> keys) {
  for (const char* key : keys) taken_.insert(key);
}

void ConfigReader::Violation(const std::string& key, const std::string& what) {
  const auto it = object_.find(key);
  problems_.push_back(
      absl::StrCat(prefix_, key, " (", it == object_.end() ? "absent" : Show(*it), ") ", what));
}

void ConfigReader::RefuseOthers() {
  for (const auto& [key, value] : object_.items()) {
    if (value.is_null() || taken_.count(key) > 0) continue;
    Violation(key,
              "is not supported: it may change what the model computes; remove it if it does not");
  }
}

}  // namespace switchyard
