// Reads typed, range-checked values from a parsed config.json and collects every violation.
//
// Every key must be taken or declared harmless; what is left at the end is a key that nobody
// understands.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard {

class ConfigReader {
 public:
  // `object` must be a JSON object and outlive the reader. `prefix` goes before key names in
  // messages.
  ConfigReader(const nlohmann::json& object, std::string prefix, std::vector<std::string>& problems)
      : object_(object), prefix_(std::move(prefix)), problems_(problems) {}

  // Value of `key`, or `fallback` when it is absent or null. Out of range: a violation, and
  // `fallback`.
  int64_t Integer(const std::string& key, int64_t fallback, int64_t minimum, int64_t maximum);
  double Number(const std::string& key, double fallback, double minimum, double maximum);
  bool Boolean(const std::string& key, bool fallback);
  std::string Text(const std::string& key, const std::string& fallback);
  std::vector<int64_t> Integers(const std::string& key);

  // Present and not null.
  bool Has(const std::string& key) const;
  // The value itself, null when absent; counts as taken.
  const nlohmann::json& Raw(const std::string& key);
  // Keys that cannot change what the model computes.
  void Ignore(std::initializer_list<const char*> keys);
  void Violation(const std::string& key, const std::string& what);
  // A violation for every key that was not taken; nulls are absent keys.
  void RefuseOthers();

 private:
  const nlohmann::json* Take(const std::string& key);

  const nlohmann::json& object_;
  std::string prefix_;
  std::vector<std::string>& problems_;
  std::set<std::string> taken_;
};

}  // namespace switchyard
