#include "coordinator/web/job_list_page.h"

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/units.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/job_text.h"

namespace switchyard::coordinator {
namespace {

constexpr int kMostJobs = 200;
constexpr int kMostSlotBoxes = 16;

absl::Time TimeOf(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

std::string Created(const v1::Job& job) {
  return absl::FormatTime("%Y-%m-%d %H:%M", TimeOf(job.create_time()), absl::UTCTimeZone());
}

std::string Cell(const std::string& css_class, const std::string& html,
                 const std::string& label = "") {
  return absl::StrCat("<td class=\"", css_class, "\"",
                      label.empty() ? "" : absl::StrCat(" data-label=\"", label, "\""), ">", html,
                      "</td>");
}

std::string ProgressCell(const v1::Job& job) {
  const auto& progress = job.progress();
  const int64_t total = std::max<int64_t>(progress.total_steps(), job.plan().total_steps());
  const double share =
      total > 0 ? static_cast<double>(progress.step()) / static_cast<double>(total) : 0;
  const char* colour = job.state() == v1::JOB_STATE_SUCCEEDED ? "good"
                       : job.state() == v1::JOB_STATE_FAILED  ? "bad"
                       : job.terminal()                       ? "idle"
                                                              : "m0";
  std::string text = absl::StrCat(FormatGrouped(progress.step()), " of ", FormatGrouped(total),
                                  absl::StrFormat(" steps, %.0f %%", std::floor(100 * share)));
  if (job.state() == v1::JOB_STATE_RUNNING && job.phase() != v1::JOB_PHASE_TRAINING) {
    absl::StrAppend(&text, ", ", PhaseWord(job.phase()));
  }
  return absl::StrCat(HtmlBar(HtmlBarSegment(colour, 0, share, text)), "<small>", text, "</small>");
}

// What one wants to know next: where it stands in the queue, when it ends, why it ended.
std::string Note(const v1::Job& job) {
  if (job.queue_position() > 0) {
    return absl::StrCat("place ", job.queue_position(), ": ", EscapeHtml(job.reason().message()));
  }
  if (job.terminal()) {
    if (job.state() != v1::JOB_STATE_SUCCEEDED) return EscapeHtml(job.reason().message());
    const double took = absl::ToDoubleSeconds(TimeOf(job.end_time()) - TimeOf(job.start_time()));
    return absl::StrCat("took ", FormatDuration(std::max(0.0, took)));
  }
  if (job.state() == v1::JOB_STATE_RUNNING && job.progress().eta().seconds() > 0) {
    return absl::StrCat("ends in ",
                        FormatDuration(static_cast<double>(job.progress().eta().seconds())));
  }
  return EscapeHtml(job.reason().message());
}

std::string Row(const v1::Job& job) {
  const auto& progress = job.progress();
  const std::string id = EscapeHtml(JobId(job));
  const std::string project = EscapeHtml(JobProject(job));
  std::string loss = "-";
  if (progress.has_eval_loss()) {
    loss = absl::StrFormat("%.4f <small>held-out</small>", progress.eval_loss());
  } else if (progress.step() > 0) {
    loss = absl::StrFormat("%.4f", progress.loss());
  }
  return absl::StrCat(
      "<tr>",
      Cell("name", absl::StrCat("<a href=\"/jobs/", project, "/", id, "\">", id, "</a><small>",
                                project, ", ", Created(job), " UTC</small>")),
      Cell("state", StateBadge(job.state())),
      Cell("progress", absl::StrCat(ProgressCell(job), "<small>", Note(job), "</small>")),
      Cell("figure n", loss, "Loss"),
      Cell("figure n",
           progress.tokens_per_second() > 0
               ? FormatGrouped(std::llround(progress.tokens_per_second()))
               : "-",
           "Tokens/s"),
      "</tr>");
}

std::string Filter(const std::string& text, const std::string& project, const std::string& state,
                   bool current) {
  std::string target = "/";
  if (!project.empty()) absl::StrAppend(&target, "?project=", EscapeHtml(project));
  if (!state.empty()) {
    absl::StrAppend(&target, project.empty() ? "?" : "&amp;", "state=", state);
  }
  return absl::StrCat("<a href=\"", target, "\"", current ? " aria-current=\"page\"" : "", ">",
                      EscapeHtml(text), "</a>");
}

std::string Filters(const JobListInput& input) {
  std::set<std::string> projects;
  for (const auto& job : input.jobs) projects.insert(JobProject(*job));
  std::string html = "<div class=\"filters\">";
  html += Filter("All", input.project, "", input.state.empty());
  html += Filter("Active", input.project, "active", input.state == "active");
  html += Filter("Ended", input.project, "ended", input.state == "ended");
  html += "</div>";
  if (projects.size() > 1 || !input.project.empty()) {
    html += "<div class=\"filters\">";
    html += Filter("Every project", "", input.state, input.project.empty());
    for (const std::string& project : projects)
      html += Filter(project, project, input.state, input.project == project);
    html += "</div>";
  }
  return html;
}

std::string JobsCard(const JobListInput& input) {
  std::string rows;
  int shown = 0;
  int matching = 0;
  for (const auto& job : input.jobs) {
    if (!input.project.empty() && JobProject(*job) != input.project) continue;
    if (input.state == "active" && job->terminal()) continue;
    if (input.state == "ended" && !job->terminal()) continue;
    ++matching;
    if (shown == kMostJobs) continue;
    ++shown;
    rows += Row(*job);
  }
  std::string body = Filters(input);
  if (rows.empty()) {
    body += input.jobs.empty()
                ? "<p class=\"empty\">No jobs yet. <code>switchyard submit job.yaml</code> starts "
                  "the first.</p>"
                : "<p class=\"empty\">No job matches.</p>";
  } else {
    absl::StrAppend(&body,
                    "<div class=\"scroll\"><table><thead><tr><th>Job</th><th>State</th>"
                    "<th>Progress</th><th class=\"n\">Loss</th><th class=\"n\">Tokens/s</th></tr>"
                    "</thead><tbody>",
                    rows, "</tbody></table></div>");
  }
  return HtmlCard("Jobs",
                  matching > shown
                      ? absl::StrCat("The newest ", shown, " of ", FormatGrouped(matching),
                                     "; switchyard jobs lists all")
                      : "",
                  body, "jobs");
}

std::string NodeStateWord(const v1::Node& node) {
  if (node.state() == v1::NODE_STATE_LOST) return "<span class=\"sev-error\">lost</span>";
  if (node.state() == v1::NODE_STATE_SUSPECT) return "<span class=\"sev-warning\">suspect</span>";
  if (node.draining()) return "draining";
  return node.cordoned() ? "cordoned" : "ready";
}

std::string SlotBoxes(const v1::Node& node) {
  int used = 0;
  for (const auto& slot : node.slots()) used += slot.job().empty() ? 0 : 1;
  std::string html;
  if (node.slots_size() <= kMostSlotBoxes) {
    html = "<div class=\"slots\" aria-hidden=\"true\">";
    for (const auto& slot : node.slots()) {
      const char* look = !slot.job().empty()                  ? "used"
                         : node.cordoned() || node.draining() ? "closed"
                                                              : "free";
      absl::StrAppend(&html, "<i class=\"", look, "\"></i>");
    }
    html += "</div>";
  }
  return absl::StrCat(html, "<small>", used, " of ", node.slots_size(), " in use</small>");
}

std::string NodesCard(const JobListInput& input) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& node : input.nodes) {
    const bool has_slots = node.slots_size() > 0;
    rows.push_back(
        {absl::StrCat(EscapeHtml(node.name().substr(node.name().rfind('/') + 1)), "<small>agent ",
                      EscapeHtml(node.agent_version()), "</small>"),
         NodeStateWord(node), SlotBoxes(node),
         has_slots ? absl::StrCat(EscapeHtml(node.slots(0).product()), "<small>",
                                  FormatBytes(static_cast<double>(node.slots(0).memory_bytes())),
                                  " each</small>")
                   : "-"});
  }
  if (rows.empty()) {
    return HtmlCard("Nodes", "",
                    "<p class=\"empty\">No agent has connected. <code>switchyard-agent "
                    "--coordinator HOST:PORT</code> on each machine adds it.</p>");
  }
  return HtmlCard("Nodes", "", HtmlTable({"Node", "State", "Slots", "Device"}, rows), "nodes");
}

std::string Tiles(const JobListInput& input) {
  int running = 0;
  int queued = 0;
  int active = 0;
  for (const auto& job : input.jobs) {
    running += job->state() == v1::JOB_STATE_RUNNING ? 1 : 0;
    queued += job->state() == v1::JOB_STATE_QUEUED ? 1 : 0;
    active += job->terminal() ? 0 : 1;
  }
  int ready = 0;
  int slots = 0;
  int used = 0;
  for (const auto& node : input.nodes) {
    if (node.state() != v1::NODE_STATE_READY) continue;
    ++ready;
    slots += node.slots_size();
    for (const auto& slot : node.slots()) used += slot.job().empty() ? 0 : 1;
  }
  return absl::StrCat(
      "<div class=\"tiles\">",
      HtmlTile("Running", FormatGrouped(running), absl::StrCat(FormatGrouped(active), " active")),
      HtmlTile("Queued", FormatGrouped(queued), "wait for slots"),
      HtmlTile("Slots in use", FormatGrouped(used),
               absl::StrCat("of ", FormatGrouped(slots), " on ready nodes")),
      HtmlTile("Nodes ready", FormatGrouped(ready), absl::StrCat("of ", input.nodes.size())),
      "</div>");
}

}  // namespace

std::string RenderJobList(const JobListInput& input) {
  return absl::StrCat("<main><header><h1>Jobs and nodes</h1></header>", Tiles(input),
                      JobsCard(input), NodesCard(input), "</main>");
}

}  // namespace switchyard::coordinator
