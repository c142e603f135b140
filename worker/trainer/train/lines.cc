#include "worker/trainer/train/lines.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace switchyard::trainer {
namespace {

using nlohmann::json;

// JSON has no NaN; a bare null would be read as 0.
json Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

std::string Line(const char* name, json fields) {
  return json{{name, std::move(fields)}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string RendezvousLine(const std::string& id) { return Line("rendezvous", {{"id", id}}); }

std::string ReadyLine(int rank, int64_t resumed_from_step, int64_t arena_bytes) {
  return Line(
      "ready",
      {{"rank", rank}, {"resumed_from_step", resumed_from_step}, {"arena_bytes", arena_bytes}});
}

std::string PhaseLine(const std::string& name, double progress) {
  return Line("phase", {{"name", name}, {"progress", Number(progress)}});
}

std::string StepLine(const StepReport& report) {
  json phases = json::object();
  for (const auto& [name, seconds] : report.phase_seconds) phases[name] = Number(seconds);
  return Line("step", {{"step", report.step},
                       {"loss", Number(report.loss)},
                       {"aux_loss", Number(report.aux_loss)},
                       {"learning_rate", Number(report.learning_rate)},
                       {"grad_norm", Number(report.grad_norm)},
                       {"tokens", report.tokens},
                       {"targets", report.targets},
                       {"step_seconds", Number(report.step_seconds)},
                       {"phase_seconds", phases},
                       {"peak_memory_bytes", report.peak_memory_bytes},
                       {"skipped", report.skipped},
                       {"expert_load_max_over_mean", Number(report.expert_load_max_over_mean)},
                       {"dead_experts", report.dead_experts},
                       {"router_entropy_ratio", Number(report.router_entropy_ratio)},
                       {"arena_high_water_bytes", report.arena_high_water_bytes}});
}

std::string EvalLine(int64_t step, double loss, int64_t targets) {
  return Line("eval", {{"step", step}, {"loss", Number(loss)}, {"targets", targets}});
}

std::string ExpertLoadLine(const ExpertLoadReport& report) {
  json layers = json::array();
  for (size_t i = 0; i < report.layers.size(); ++i) {
    layers.push_back(
        {{"layer", report.layers[i]}, {"tokens_per_expert", report.tokens_per_expert[i]}});
  }
  return Line("expert_load",
              {{"step", report.step}, {"num_experts", report.num_experts}, {"layers", layers}});
}

std::string CheckpointShardLine(const CheckpointShardReport& report) {
  return Line("checkpoint_shard", {{"rank", report.rank},
                                   {"step", report.step},
                                   {"stage_path", report.stage_path},
                                   {"final_path", report.final_path},
                                   {"final", report.final},
                                   {"bytes", report.bytes}});
}

std::string ExitLine(const std::string& code, const std::string& message, int64_t step) {
  return Line("exit", {{"code", code}, {"message", message}, {"step", step}});
}

AgentLine ParseAgentLine(const std::string& text) {
  AgentLine line;
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return line;
  const auto text_field = [&](const char* message,
                              const char* field) -> std::optional<std::string> {
    const json& object = document[message];
    if (!object.contains(field) || !object[field].is_string()) return std::nullopt;
    return object[field].get<std::string>();
  };
  const auto has = [&](const char* message) {
    return document.contains(message) && document[message].is_object();
  };
  if (has("rendezvous")) line.rendezvous_id = text_field("rendezvous", "id");
  if (has("checkpoint_now")) {
    line.checkpoint_now = true;
    const json& then_stop = document["checkpoint_now"].value("then_stop", json(false));
    line.then_stop = then_stop.is_boolean() && then_stop.get<bool>();
  }
  if (has("stop")) {
    line.stop = true;
    line.stop_reason = text_field("stop", "reason").value_or("");
  }
  return line;
}

}  // namespace switchyard::trainer
