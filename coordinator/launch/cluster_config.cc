#include "coordinator/launch/cluster_config.h"

#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace switchyard::coordinator {

namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;

// Whether the fields of an object are fields that we know, and not the user's own.
bool HasFields(const FieldDescriptor& field) {
  return field.message_type() != nullptr && !field.is_repeated() &&
         field.message_type()->full_name() != "google.protobuf.Struct";
}

// Merges `object`, which stands at `path` in the file, field by field, so that one fault hides no
// other. `type` is what the object is.
void Merge(const json& object, const Descriptor& type, const std::vector<std::string>& path,
           Message& config, std::vector<std::string>& problems) {
  for (const auto& [key, value] : object.items()) {
    std::vector<std::string> place = path;
    place.push_back(key);
    const std::string name = absl::StrJoin(place, ".");
    const FieldDescriptor* field = type.FindFieldByName(key);
    if (field == nullptr) field = type.FindFieldByCamelcaseName(key);
    if (field == nullptr) {
      problems.push_back(absl::StrCat(name, ": there is no such field; take it out"));
      continue;
    }
    if (HasFields(*field) && value.is_object()) {
      Merge(value, *field->message_type(), place, config, problems);
      continue;
    }
    json alone = value;
    for (auto part = place.rbegin(); part != place.rend(); ++part) alone = {{*part, alone}};
    const std::unique_ptr<Message> read(config.New());
    const auto parsed = google::protobuf::util::JsonStringToMessage(alone.dump(), read.get());
    if (parsed.ok()) {
      config.MergeFrom(*read);
    } else {
      problems.push_back(Fault(name, value.dump(), std::string(parsed.message())));
    }
  }
}

}  // namespace

absl::Status ReadConfigFile(const std::string& flag, const std::string& path, Message* config,
                            std::vector<std::string>* problems) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, " cannot be read"));
  json object;
  try {
    object = json::parse(text.str());
  } catch (const json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", error.what()));
  }
  if (!object.is_object())
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": give a JSON object"));
  Merge(object, *config->GetDescriptor(), {}, *config, *problems);
  return absl::OkStatus();
}

std::string Fault(const std::string& field, const std::string& value, const std::string& fix) {
  if (value.empty()) return absl::StrCat(field, " is missing: ", fix);
  return absl::StrCat(field, " is ", value.front() == '"' ? value : absl::StrCat("\"", value, "\""),
                      ": ", fix);
}

std::string Fault(const std::string& field, double value, const std::string& fix) {
  return absl::StrCat(field, " is ", value, ": ", fix);
}

void CheckNodeShape(const launch::v1::NodeShape& nodes, std::vector<std::string>* problems) {
  const auto expect = [&](bool good, const char* field, const auto& value, const char* fix) {
    if (!good) problems->push_back(Fault(field, value, fix));
  };
  expect(nodes.count() > 0, "nodes.count", nodes.count(),
         "how many nodes may be held at once, at least 1");
  expect(nodes.device() == "cuda" || nodes.device() == "cpu", "nodes.device", nodes.device(),
         "\"cuda\" or \"cpu\"");
  expect(nodes.slots() > 0 && nodes.slots() <= 1024, "nodes.slots", nodes.slots(),
         "slots of a node, 1 to 1024");
  expect(!nodes.product().empty(), "nodes.product", nodes.product(),
         "product name of the GPU or CPU");
  expect(nodes.slot_memory_gib() > 0, "nodes.slot_memory_gib", nodes.slot_memory_gib(),
         "memory of one slot, GiB");
  expect(nodes.cpu_cores() > 0, "nodes.cpu_cores", nodes.cpu_cores(), "cores of a node");
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
