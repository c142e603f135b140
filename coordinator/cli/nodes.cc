// nodes and node cordon|uncordon|drain|forget.
#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/fetch.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/text_table.h"

namespace switchyard::coordinator {
namespace {

std::string NodeWord(const v1::Node& node) {
  std::string word = NodeStateWord(node.state());
  if (node.draining()) return word + ", draining";
  return node.cordoned() ? word + ", cordoned" : word;
}

void AddNodeRow(const v1::Node& node, absl::Time now, bool color, TextTable& table) {
  int used = 0;
  std::map<std::string, int> jobs;
  for (const auto& slot : node.slots()) {
    if (slot.job().empty()) continue;
    ++used;
    ++jobs[ShortName(slot.job())];
  }
  std::string holders;
  for (const auto& [job, slots] : jobs) {
    absl::StrAppend(&holders, holders.empty() ? "" : ", ", job, " (", slots, ")");
  }
  const std::string device = node.slots().empty() ? "-" : node.slots(0).device();
  const bool ready = node.state() == v1::NODE_STATE_READY && !node.cordoned() && !node.draining();
  table.AddRow({Printable(ShortName(node.name())),
                Colored(NodeWord(node), ready ? "\033[32m" : "\033[33m", color),
                absl::StrCat(used, "/", node.slots_size()), device,
                node.slots().empty() ? "-" : FormatBytes(node.slots(0).memory_bytes()),
                absl::StrCat(node.cpu_cores()), AgeText(node.last_heartbeat_time(), now),
                node.agent_version(), holders.empty() ? "-" : holders});
}

absl::StatusOr<int> List(CliContext& context) {
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::ListNodesResponse nodes, FetchNodes(client));
  if (context.options.json) {
    context.io.out << JsonText(nodes);
    return kExitOk;
  }
  if (nodes.nodes().empty()) {
    context.io.out << "No node is known. Start one with: switchyard-agent --coordinator "
                   << context.options.coordinator.address << " --node NAME\n";
    return kExitOk;
  }
  TextTable table(
      {"NODE", "STATE", "SLOTS USED", "DEVICE", "MEMORY/SLOT", "CORES", "HEARD", "AGENT", "JOBS"});
  for (const v1::Node& node : nodes.nodes()) AddNodeRow(node, absl::Now(), context.io.color, table);
  context.io.out << table.Render();
  return kExitOk;
}

std::string NodeNameOf(const std::string& name) {
  return absl::StartsWith(name, "nodes/") ? name : "nodes/" + name;
}

template <typename Request>
void AddNodeAction(CLI::App& parent, CommandBody& chosen, const char* verb, const char* help,
                   grpc::Status (v1::NodeService::Stub::*method)(grpc::ClientContext*,
                                                                 const Request&, v1::Node*)) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = parent.add_subcommand(verb, help);
  command->add_option("node", *name, "Node name")->required();
  command->callback([&chosen, name, method] {
    chosen = [name, method](CliContext& context) -> absl::StatusOr<int> {
      const ApiClient client(context.options.coordinator);
      Request request;
      request.set_name(NodeNameOf(*name));
      SWITCHYARD_ASSIGN_OR_RETURN(const v1::Node node,
                                  client.Call(method, client.nodes(), request));
      if (context.options.json) {
        context.io.out << JsonText(node);
      } else {
        context.io.out << ShortName(node.name()) << ": " << NodeWord(node) << "\n";
      }
      return kExitOk;
    };
  });
}

void AddForget(CLI::App& parent, CommandBody& chosen) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = parent.add_subcommand("forget", "Remove a machine that is gone for good");
  command->add_option("node", *name, "Node name")->required();
  command->callback([&chosen, name] {
    chosen = [name](CliContext& context) -> absl::StatusOr<int> {
      const ApiClient client(context.options.coordinator);
      v1::DeleteNodeRequest request;
      request.set_name(NodeNameOf(*name));
      SWITCHYARD_ASSIGN_OR_RETURN(
          const v1::DeleteNodeResponse response,
          client.Call(&v1::NodeService::Stub::DeleteNode, client.nodes(), request));
      context.io.out << (context.options.json ? JsonText(response)
                                              : ShortName(request.name()) + ": forgotten\n");
      return kExitOk;
    };
  });
}

}  // namespace

void AddNodeCommands(CLI::App& app, CommandBody& chosen) {
  app.add_subcommand("nodes", "List the machines and who uses them")->callback([&chosen] {
    chosen = List;
  });
  CLI::App* node = app.add_subcommand("node", "Take a machine out of use, or back");
  node->require_subcommand(1);
  using Stub = v1::NodeService::Stub;
  AddNodeAction<v1::CordonNodeRequest>(*node, chosen, "cordon", "No new job on this node",
                                       &Stub::CordonNode);
  AddNodeAction<v1::UncordonNodeRequest>(*node, chosen, "uncordon", "New jobs again",
                                         &Stub::UncordonNode);
  AddNodeAction<v1::DrainNodeRequest>(
      *node, chosen, "drain", "Save the node's jobs and move them elsewhere", &Stub::DrainNode);
  AddForget(*node, chosen);
}

}  // namespace switchyard::coordinator
