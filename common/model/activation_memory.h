// What a decoder layer keeps between its forward and its backward, from least recomputation to
// most.
//
// The one list that specs, planner and trainer share. Gradients are the same to the bit under
// every choice on CPU: what is recomputed is the same operation on the same numbers. Attention's
// output and log-sum-exp are always kept: at the long sequences for which memory is scarce, it is
// what costs most to compute. So are the router's choices. Knows nothing of bytes or speed:
// rank_memory.h and the planner's throughput model do.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

enum class ActivationMemory {
  kSaveAll,          // also the rows routed to this rank's experts
  kRecomputeRows,    // rows are brought once more
  kRecomputeGateUp,  // and the products before the feed-forward networks' activation computed
  kRecomputeLayer,   // and attention's two projections and the dispatch; kept are the layer's
                     // input, attention's output and the router's choices
};

inline constexpr std::array<ActivationMemory, 4> kActivationMemories = {
    ActivationMemory::kSaveAll, ActivationMemory::kRecomputeRows,
    ActivationMemory::kRecomputeGateUp, ActivationMemory::kRecomputeLayer};

// What is kept of that which need not be.
struct SavedParts {
  bool rows;     // routed rows, normed tokens
  bool gate_up;  // of experts or of the dense network
  bool layer;    // qkv, residual between attention and network, routing
};

constexpr SavedParts SavedUnder(ActivationMemory activations) {
  return {activations == ActivationMemory::kSaveAll,
          activations <= ActivationMemory::kRecomputeRows,
          activations <= ActivationMemory::kRecomputeGateUp};
}

// "save_all", "recompute_rows", "recompute_gate_up", "recompute_layer".
constexpr const char* ActivationMemoryName(ActivationMemory activations) {
  switch (activations) {
    case ActivationMemory::kSaveAll:
      return "save_all";
    case ActivationMemory::kRecomputeRows:
      return "recompute_rows";
    case ActivationMemory::kRecomputeGateUp:
      return "recompute_gate_up";
    case ActivationMemory::kRecomputeLayer:
      break;
  }
  return "recompute_layer";
}

// All of them.
inline std::vector<std::string> ActivationMemoryNames() {
  std::vector<std::string> names;
  for (const ActivationMemory choice : kActivationMemories)
    names.emplace_back(ActivationMemoryName(choice));
  return names;
}

// The inverse; nothing for any other text.
inline std::optional<ActivationMemory> ActivationMemoryByName(const std::string& name) {
  for (const ActivationMemory activations : kActivationMemories) {
    if (name == ActivationMemoryName(activations)) return activations;
  }
  return std::nullopt;
}

}  // namespace switchyard
