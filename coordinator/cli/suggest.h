// The known name nearest to a mistyped one.
#pragma once

#include <string>
#include <vector>

namespace switchyard::coordinator {

// Edits (insert, delete, replace, swap of neighbours) from one to the other, case ignored.
int EditDistance(const std::string& a, const std::string& b);
// The nearest of `known`, or empty when none is near enough to be meant.
std::string NearestName(const std::string& name, const std::vector<std::string>& known);

}  // namespace switchyard::coordinator
