// Reading JSON that others wrote: what is missing or of another type counts as empty.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

namespace switchyard::coordinator {

using Json = nlohmann::json;

// The value at the end of `path`, keys of nested objects; null when there is none.
inline const Json& At(const Json& value, std::initializer_list<const char*> path) {
  static const Json kNull;
  const Json* at = &value;
  for (const char* key : path) {
    if (!at->is_object()) return kNull;
    const auto found = at->find(key);
    if (found == at->end()) return kNull;
    at = &*found;
  }
  return *at;
}

inline std::string TextAt(const Json& value, std::initializer_list<const char*> path) {
  const Json& at = At(value, path);
  return at.is_string() ? at.get<std::string>() : "";
}

inline int NumberAt(const Json& value, std::initializer_list<const char*> path, int otherwise = 0) {
  const Json& at = At(value, path);
  return at.is_number_integer() ? at.get<int>() : otherwise;
}

// Elements of a list; of anything else none.
inline const Json& ListAt(const Json& value, std::initializer_list<const char*> path) {
  static const Json kNone = Json::array();
  const Json& at = At(value, path);
  return at.is_array() ? at : kNone;
}

}  // namespace switchyard::coordinator
