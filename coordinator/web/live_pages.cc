#include "coordinator/web/live_pages.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/content_hash.h"
#include "coordinator/report/html_report.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/job_text.h"
#include "coordinator/web/job_list_page.h"
#include "coordinator/web/page_frame.h"

namespace switchyard::coordinator {
namespace {

constexpr int kSamples = 600;  // a chart is about that many pixels wide
constexpr size_t kEvents = 200;
constexpr std::chrono::seconds kListEvery{3};
constexpr std::chrono::seconds kRunningEvery{2};
constexpr std::chrono::seconds kEndedEvery{15};

http::Response Answer(const http::Request& request, int status, const std::string& type,
                      std::string text) {
  http::Response response;
  const std::string tag = absl::StrCat("\"", HashText(ContentHash(text.data(), text.size())), "\"");
  response.headers = {{"ETag", tag},
                      {"Cache-Control", "no-cache"},
                      {"Content-Security-Policy", kPagePolicy},
                      {"Referrer-Policy", "no-referrer"},
                      {"Cross-Origin-Opener-Policy", "same-origin"},
                      {"Cross-Origin-Resource-Policy", "same-origin"}};
  response.content_type = type;
  if (status == 200 && absl::StrContains(request.if_none_match, tag)) {
    response.status = 304;
    return response;
  }
  response.status = status;
  response.body = std::move(text);
  return response;
}

http::Response AnswerPage(const http::Request& request, int status, const Page& page) {
  return Answer(request, status, "text/html; charset=utf-8", RenderPage(page));
}

http::Response Problem(const http::Request& request, int status, const std::string& title,
                       const std::string& text) {
  return AnswerPage(
      request, status,
      {title, "",
       absl::StrCat("<main><header><h1>", EscapeHtml(title), "</h1><p>", EscapeHtml(text),
                    "</p><p><a href=\"/\">All jobs</a></p>", "</header></main>"),
       kEndedEvery});
}

http::Response ServeAsset(const http::Request& request) {
  const Asset* asset = FindAsset(request.path);
  if (asset == nullptr) return http::TextResponse(404, "There is nothing at this address.\n");
  return Answer(request, 200, asset->content_type, asset->text);
}

std::string Query(const http::Request& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

}  // namespace

void LivePages::AddTo(http::Server& server) {
  server.Handle("/", [this](const http::Request& request) {
    return request.path == "/"
               ? JobList(request)
               : Problem(request, 404, "Not found", "There is nothing at this address.");
  });
  server.Handle("/jobs/", [this](const http::Request& request) { return JobReport(request); });
  server.Handle("/assets/", ServeAsset);
}

http::Response LivePages::JobList(const http::Request& request) const {
  JobListInput input;
  const MaySee may_see = visibility_(request);
  input.jobs = state_.Jobs();
  std::erase_if(input.jobs, [&](const auto& job) { return !may_see(job->name()); });
  for (v1::Node& node : state_.Nodes())
    input.nodes.push_back(VisibleNode(std::move(node), may_see));
  input.project = Query(request, "project");
  input.state = Query(request, "state");
  if (input.state != "active" && input.state != "ended") input.state.clear();
  return AnswerPage(request, 200, {"Jobs", "", RenderJobList(input), kListEvery});
}

http::Response LivePages::JobReport(const http::Request& request) const {
  const std::vector<std::string> parts = absl::StrSplit(request.path, '/');  // "", jobs, P, J
  const std::string name =
      parts.size() == 4 ? absl::StrCat("projects/", parts[2], "/jobs/", parts[3]) : std::string();
  const std::shared_ptr<const v1::Job> job = state_.FindJob(name);
  if (job == nullptr) {
    return Problem(request, 404, "No such job",
                   "It was deleted, or the address is not /jobs/PROJECT/JOB.");
  }
  ReportInput input;
  input.job = *job;
  input.now = absl::Now();
  auto samples = metrics_.Query(job->uid(), 0, -1, kSamples);
  auto load = metrics_.Load(job->uid());
  if (!samples.ok() || !load.ok()) {
  input.now = absl::Now();
    return Problem(request, 503, "The job's records cannot be read",
                   std::string((samples.ok() ? load.status() : samples.status()).message()));
  }
  input.samples = *std::move(samples);
  if (load->has_value()) input.expert_load = **std::move(load);
  while (true) {
    const int64_t after = input.events.empty() ? 0 : input.events.back().sequence();
    const auto events = store_.ListEvents(name, after, 1000);
    if (!events.ok() || events->empty()) break;
    input.events.insert(input.events.end(), events->begin(), events->end());
  }
  if (input.events.size() > kEvents) {
    const size_t old = input.events.size() - kEvents;
    input.events.erase(input.events.begin(), input.events.begin() + static_cast<ptrdiff_t>(old));
    input.events_left_out = static_cast<int64_t>(old);
  }
  return AnswerPage(request, 200,
                    {absl::StrCat(JobId(*job), ", ", JobStateName(job->state())),
                     absl::StrCat("/ <a href=\"/?project=", EscapeHtml(parts[2]), "\">",
                                  EscapeHtml(parts[2]), "</a> / ", EscapeHtml(parts[3])),
                     RenderReportMain(input), job->terminal() ? kEndedEvery : kRunningEvery});
}

}  // namespace switchyard::coordinator
