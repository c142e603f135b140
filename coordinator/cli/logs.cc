// logs and events.
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/fetch.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/log_view.h"
#include "coordinator/cli/text_table.h"

namespace switchyard::coordinator {
namespace {

struct LogArguments {
  std::string job;
  bool follow = false;
  std::optional<int> rank;
  int64_t epoch = 0;
  int tail = 0;
};

absl::StatusOr<int> Logs(CliContext& context, const LogArguments& arguments) {
  const ApiClient client(context.options.coordinator);
  v1::StreamLogsRequest request;
  request.set_name(context.JobName(arguments.job));
  request.set_epoch(arguments.epoch);
  request.set_follow(arguments.follow);
  request.set_tail_lines(arguments.tail);
  if (arguments.rank.has_value()) request.set_rank(*arguments.rank);
  LogPrinter printer(!arguments.rank.has_value(), context.io.color);
  absl::Time last_answer = absl::Now();
  for (int attempt = 0;;) {
    grpc::ClientContext call;
    auto stream = client.jobs().StreamLogs(&call, request);
    v1::StreamLogsResponse chunk;
    while (stream->Read(&chunk)) {
      attempt = 0;
      last_answer = absl::Now();
      if (!printer.Advance(chunk)) continue;
      context.io.out << (context.options.json ? JsonLine(chunk) : printer.Text(chunk))
                     << std::flush;
    }
    const grpc::Status status = stream->Finish();
    if (status.ok()) return kExitOk;
    const bool again = arguments.follow && status.error_code() == grpc::StatusCode::UNAVAILABLE &&
                       absl::Now() - last_answer < context.options.retry_for;
    if (!again) return client.Error(status);
    request.set_tail_lines(0);  // all of it again: the printer leaves out what it has shown
    SleepBeforeReconnect(attempt++);
  }
}

absl::StatusOr<int> Events(CliContext& context, const std::string& job) {
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::ListEventsResponse events,
                              FetchEvents(client, context.JobName(job)));
  if (context.options.json) {
    context.io.out << JsonText(events);
    return kExitOk;
  }
  TextTable table({"TIME", "ATTEMPT", "EVENT", "MESSAGE"});
  for (const v1::Event& event : events.events()) {
    const bool error = event.severity() == v1::EVENT_SEVERITY_ERROR;
    const bool bad = error || event.severity() == v1::EVENT_SEVERITY_WARNING;
    table.AddRow({TimeText(event.time()), event.epoch() > 0 ? absl::StrCat(event.epoch()) : "-",
                  Colored(event.type(), error ? "\033[31m" : "\033[33m", context.io.color && bad),
                  Printable(event.message())});
  }
  context.io.out << (events.events().empty() ? "No events.\n" : table.Render());
  return kExitOk;
}

}  // namespace

void AddLogCommands(CLI::App& app, CommandBody& chosen) {
  auto arguments = std::make_shared<LogArguments>();
  CLI::App* logs = app.add_subcommand("logs", "Print what a job's ranks wrote");
  logs->add_option("job", arguments->job, "Job id or resource name")->required();
  logs->add_flag("-f,--follow", arguments->follow, "Stay and print new lines until the job ends");
  logs->add_option("--rank", arguments->rank, "Only this rank");
  logs->add_option("--epoch", arguments->epoch, "Attempt; default the current one")
      ->check(CLI::NonNegativeNumber);
  logs->add_option("--tail", arguments->tail, "Only the last so many lines of each rank; 0 for all")
      ->check(CLI::NonNegativeNumber);
  logs->callback([&chosen, arguments] {
    chosen = [arguments](CliContext& context) { return Logs(context, *arguments); };
  });

  auto job = std::make_shared<std::string>();
  CLI::App* events = app.add_subcommand("events", "List what happened to a job");
  events->add_option("job", *job, "Job id or resource name")->required();
  events->callback(
      [&chosen, job] { chosen = [job](CliContext& context) { return Events(context, *job); }; });
}

}  // namespace switchyard::coordinator
