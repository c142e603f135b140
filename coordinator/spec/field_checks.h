// Checks of single fields, shared by the rules of validate.cc.
//
// Collects violations; every description has the value and the fix. Long values are clipped, so
// that a hostile spec cannot make a large answer.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/rpc/violations.h"

namespace switchyard::coordinator {

// Value in quotes, control characters escaped, at most 80 characters.
std::string Quote(const std::string& value);

// Range of a floating-point field.
struct Range {
  double low = 0;
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;  // low itself is not allowed
  bool high_open = false;
};

class FieldChecks {
 public:
  void Add(std::string field, std::string description) {
    violations_.push_back({std::move(field), std::move(description)});
  }
  void CheckInteger(const std::string& field, int64_t value, int64_t low, int64_t high);
  void CheckNumber(const std::string& field, double value, const Range& range);
  void CheckChoice(const std::string& field, const std::string& value,
                   const std::vector<std::string>& choices);
  // Absolute, no ".." part, no NUL or control character, at most 4096 bytes. False when violated.
  bool CheckPath(const std::string& field, const std::string& value, const std::string& what);

  std::vector<rpc::Violation> Take() { return std::move(violations_); }

 private:
  std::vector<rpc::Violation> violations_;
};

}  // namespace switchyard::coordinator
