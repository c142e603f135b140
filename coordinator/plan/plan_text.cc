#include "coordinator/plan/plan_text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/model/activation_memory.h"
#include "common/units.h"

namespace switchyard::coordinator {
namespace {

constexpr size_t kColumns = 100;
constexpr int kBarWidth = 30;

std::string Bytes(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

class Writer {
 public:
  explicit Writer(bool color) : color_(color) {}

  std::string Styled(const char* code, const std::string& text) const {
    return color_ ? absl::StrCat("\x1b[", code, "m", text, "\x1b[0m") : text;
  }
  void Heading(const std::string& text) { absl::StrAppend(&out_, Styled("1", text), "\n"); }
  void Row(const std::string& label, const std::string& value) {
    absl::StrAppend(&out_, absl::StrFormat("  %-18s ", label), value, "\n");
  }
  void Raw(const std::string& line) { absl::StrAppend(&out_, line, "\n"); }
  // Words of `text` behind `first`, continued under its end.
  void Wrapped(const std::string& first, const std::string& text) {
    std::string line = first;
    bool empty = true;
    for (const auto& word : absl::StrSplit(text, ' ')) {
      if (!empty && line.size() + 1 + word.size() > kColumns) {
        absl::StrAppend(&out_, line, "\n");
        line.assign(first.size(), ' ');
        empty = true;
      }
      absl::StrAppend(&line, empty ? "" : " ", word);
      empty = false;
    }
    absl::StrAppend(&out_, line, "\n");
  }
  std::string Take() { return std::move(out_); }

 private:
  bool color_;
  std::string out_;
};

double Seconds(const v1::Plan& plan) {
  return static_cast<double>(plan.duration().seconds()) + plan.duration().nanos() * 1e-9;
}

std::string MeshText(const v1::Plan& plan) {
  return absl::StrCat(plan.ranks(), plan.ranks() == 1 ? " rank" : " ranks", " on ", plan.device(),
                      " = ", plan.expert_parallel(), " expert-parallel x ",
                      plan.expert_data_parallel(),
                      plan.expert_data_parallel() == 1 ? " replica" : " replicas");
}

std::string BatchText(const v1::Plan& plan) {
  return absl::StrCat(plan.global_batch_sequences(), " sequences of ",
                      FormatGrouped(plan.sequence_length()), " tokens a step; a rank takes ",
                      plan.micro_batch_sequences(), " at once, ", plan.gradient_accumulation(),
                      plan.gradient_accumulation() == 1 ? " time" : " times");
}

// "recompute_gate_up: ..."; empty for a plan made before there was a choice.
std::string ActivationText(const v1::Plan& plan) {
  const auto activations = ActivationMemoryByName(plan.activation_memory());
  if (!activations) return "";
  const char* meaning = "";
  switch (*activations) {
    case ActivationMemory::kSaveAll:
      meaning = "kept for the backward, rows of the experts too";
      break;
    case ActivationMemory::kRecomputeRows:
      meaning = "kept, but rows are brought to the experts again";
      break;
    case ActivationMemory::kRecomputeGateUp:
      meaning = "first products of the networks are computed again";
      break;
    case ActivationMemory::kRecomputeLayer:
      meaning = "layers are computed again, attention is not";
      break;
  }
  return absl::StrCat(plan.activation_memory(), ": ", meaning);
}

std::string RateText(const v1::Plan& plan) {
  return absl::StrCat(FormatGrouped(std::llround(plan.tokens_per_second())), " tokens/s predicted");
}

std::string TimeText(const v1::Plan& plan) {
  if (plan.total_steps() == 0) return "known once the data is prepared";
  return absl::StrCat(FormatDuration(Seconds(plan)), " predicted, ",
                      FormatGrouped(plan.total_steps()),
                      plan.total_steps() == 1 ? " step, " : " steps, ",
                      FormatCount(static_cast<double>(plan.total_tokens())), " tokens");
}

std::string DiskText(const v1::Plan& plan) {
  std::string text = absl::StrCat(Bytes(plan.checkpoint_bytes()), " each; ",
                                  Bytes(plan.disk_needed_bytes()), " needed with those kept");
  absl::StrAppend(&text, plan.disk_free_bytes() < 0
                             ? ", free space unknown"
                             : absl::StrCat(", ", Bytes(plan.disk_free_bytes()), " free"));
  return text;
}

void RenderMemory(const v1::Plan& plan, Writer& writer) {
  if (plan.memory().empty()) return;
  const int64_t capacity = plan.memory_capacity_bytes_per_rank();
  // Without a placement there is no capacity: shares of the need itself then.
  const auto whole = static_cast<double>(capacity > 0 ? capacity : plan.memory_bytes_per_rank());
  writer.Heading("Memory a rank");
  const auto row = [&](const std::string& name, int64_t bytes) {
    return absl::StrFormat("  %-18s %10s %5.1f %% ", name, Bytes(bytes),
                           100 * static_cast<double>(bytes) / std::max(1.0, whole));
  };
  for (const auto& category : plan.memory()) {
    if (category.bytes() == 0) continue;
    const auto filled =
        std::llround(kBarWidth * static_cast<double>(category.bytes()) / std::max(1.0, whole));
    writer.Raw(row(category.name(), category.bytes()) +
               std::string(static_cast<size_t>(std::clamp<long long>(filled, 0, kBarWidth)), '#'));
  }
  std::string total = row("total", plan.memory_bytes_per_rank());
  if (capacity > 0) absl::StrAppend(&total, "of ", Bytes(capacity));
  writer.Raw(writer.Styled(plan.feasible() ? "1" : "31", total));
}

void RenderList(const char* heading, const google::protobuf::RepeatedPtrField<std::string>& lines,
                Writer& writer) {
  if (lines.empty()) return;
  writer.Heading(heading);
  for (const auto& line : lines) writer.Wrapped("  - ", line);
}

void RenderRejected(const v1::Plan& plan, const PlanTextOptions& options, Writer& writer) {
  if (plan.rejected().empty() || options.max_rejected <= 0) return;
  writer.Heading("Rejected");
  int shown = 0;
  for (const auto& other : plan.rejected()) {
    if (shown++ == options.max_rejected) {
      writer.Raw(absl::StrCat("  and ", plan.rejected_size() - options.max_rejected, " more"));
      break;
    }
    writer.Wrapped(absl::StrFormat("  ranks %-4d ep %-4d micro %-4d ", other.ranks(),
                                   other.expert_parallel(), other.micro_batch_sequences()),
                   other.reason());
  }
}

void RenderDefaults(const v1::Plan& plan, Writer& writer) {
  if (plan.defaults().empty()) return;
  std::vector<std::string> texts;
  for (const auto& [field, value] : plan.defaults())
    texts.push_back(absl::StrCat(field, "=", value));
  std::sort(texts.begin(), texts.end());
  writer.Heading("Defaults");
  writer.Wrapped("  ", absl::StrJoin(texts, " "));
}

}  // namespace

std::string RenderPlan(const v1::Plan& plan, const PlanTextOptions& options) {
  Writer writer(options.color);
  writer.Raw(plan.feasible() ? writer.Styled("1;32", "Plan")
                             : writer.Styled("1;31", "No plan fits"));
  if (plan.ranks() > 0) {
    writer.Row("mesh", MeshText(plan));
    writer.Row("batch", BatchText(plan));
    if (const std::string text = ActivationText(plan); !text.empty())
      writer.Row("activations", text);
  }
  writer.Row(
      "model",
      absl::StrCat(FormatCount(static_cast<double>(plan.model_parameters())), " parameters, ",
                   FormatCount(static_cast<double>(plan.active_parameters())), " active a token"));
  writer.Row("numerics", absl::StrCat(plan.precision(), ", optimizer ", plan.optimizer()));
  if (plan.feasible()) {
    writer.Row("speed", RateText(plan));
    writer.Row("time", TimeText(plan));
  }
  writer.Row("checkpoints", DiskText(plan));
  RenderMemory(plan, writer);
  RenderList("Problems", plan.problems(), writer);
  RenderList("What would fit", plan.nearest(), writer);
  RenderRejected(plan, options, writer);
  RenderList("Warnings", plan.warnings(), writer);
  if (options.defaults) RenderDefaults(plan, writer);
  return writer.Take();
}

std::string SummarizePlan(const v1::Plan& plan) {
  if (!plan.feasible()) {
    return absl::StrCat("no plan fits: ",
                        plan.problems().empty() ? "no reason given" : plan.problems(0));
  }
  return absl::StrCat(MeshText(plan), ", micro-batch ", plan.micro_batch_sequences(), " x ",
                      plan.gradient_accumulation(), ", ", Bytes(plan.memory_bytes_per_rank()),
                      " of ", Bytes(plan.memory_capacity_bytes_per_rank()), " a rank, ",
                      RateText(plan));
}

}  // namespace switchyard::coordinator
