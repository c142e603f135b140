#include "coordinator/cli/suggest.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace switchyard::coordinator {

int EditDistance(const std::string& a, const std::string& b) {
  const std::string x = absl::AsciiStrToLower(a);
  const std::string y = absl::AsciiStrToLower(b);
  std::vector<std::vector<int>> cost(x.size() + 1, std::vector<int>(y.size() + 1));
  for (size_t i = 0; i <= x.size(); ++i) cost[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= y.size(); ++j) cost[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= x.size(); ++i) {
    for (size_t j = 1; j <= y.size(); ++j) {
      const int replace = cost[i - 1][j - 1] + (x[i - 1] == y[j - 1] ? 0 : 1);
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, replace});
      if (i > 1 && j > 1 && x[i - 1] == y[j - 2] && x[i - 2] == y[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[x.size()][y.size()];
}

std::string NearestName(const std::string& name, const std::vector<std::string>& known) {
  if (name.size() > 128) return "";  // no name of ours; the table would be large
  std::string best;
  int best_cost = std::max<int>(2, static_cast<int>(name.size()) / 3) + 1;
  for (const std::string& candidate : known) {
    int cost = EditDistance(name, candidate);
    // "lr_rate" is far from "learning_rate" in edits, "batch" from "global_batch_sequences"; a
    // whole part in common still says what was meant.
    if (name.size() >= 4 && candidate.find(absl::AsciiStrToLower(name)) != std::string::npos) {
      cost = std::min(cost, 2);
    }
    if (cost < best_cost) {
      best_cost = cost;
      best = candidate;
    }
  }
  return best;
}

}  // namespace switchyard::coordinator
