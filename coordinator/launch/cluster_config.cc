#include "coordinator/launch/cluster_config.h"

#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace switchyard::coordinator {

absl::Status ReadConfigFile(const std::string& flag, const std::string& path,
                            google::protobuf::Message* config) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, " cannot be read"));
  const auto parsed = google::protobuf::util::JsonStringToMessage(text.str(), config);
  if (parsed.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " ", path, ": ", std::string(parsed.message())));
}

void CheckNodeShape(const launch::v1::NodeShape& nodes, std::vector<std::string>* problems) {
  const auto expect = [&](bool good, const char* sentence) {
    if (!good) problems->push_back(sentence);
  };
  expect(nodes.count() > 0, "nodes.count: how many nodes may be held at once, at least 1");
  expect(nodes.device() == "cuda" || nodes.device() == "cpu", "nodes.device: \"cuda\" or \"cpu\"");
  expect(nodes.slots() > 0 && nodes.slots() <= 1024, "nodes.slots: slots of a node, 1 to 1024");
  expect(!nodes.product().empty(), "nodes.product: product name of the GPU or CPU");
  expect(nodes.slot_memory_gib() > 0, "nodes.slot_memory_gib: memory of one slot, GiB");
  expect(nodes.cpu_cores() > 0, "nodes.cpu_cores: cores of a node");
}

absl::Status ConfigError(const std::string& flag, const std::string& path,
                         const std::vector<std::string>& problems) {
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " ", path, ":\n  ", absl::StrJoin(problems, "\n  ")));
}

std::vector<PlannerSlot> SlotsOf(const launch::v1::NodeShape& nodes, const std::string& cluster) {
  std::vector<PlannerSlot> slots;
  for (int node = 0; node < nodes.count(); ++node) {
    for (int i = 0; i < nodes.slots(); ++i) {
      PlannerSlot& slot = slots.emplace_back();
      slot.node = absl::StrCat(node);
      slot.index = i;
      slot.device = nodes.device();
      slot.product = nodes.product();
      slot.memory_bytes = static_cast<int64_t>(nodes.slot_memory_gib() * (1 << 30));
      slot.memory_domain = nodes.one_machine() ? cluster : absl::StrCat(cluster, "-", node);
      slot.cpu_cores = nodes.cpu_cores();
      slot.node_slots = nodes.slots();
    }
  }
  return slots;
}

}  // namespace switchyard::coordinator
