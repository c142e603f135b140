#include "coordinator/report/html_report.h"

#include "absl/strings/str_cat.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/report_sections.h"
#include "coordinator/report/report_style.h"

namespace switchyard::coordinator {

std::string RenderReportMain(const ReportInput& input) {
  return absl::StrCat("<main>\n", HeaderSection(input), "<div class=\"grid2\">", LossSection(input),
                      ThroughputSection(input), "</div>", "<div class=\"grid2\">",
                      MemorySection(input), PhaseSection(input), "</div>", ExpertSection(input),
                      RouterSection(input), OptimizerSection(input), AttemptSection(input),
                      EventSection(input), PlanSection(input), SpecSection(input),
                      "<footer>Written by Switchyard from the coordinator's records.</footer>",
                      "</main>");
}

std::string RenderHtmlReport(const ReportInput& input) {
  const std::string& name = input.job.name();
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      // Nothing may be loaded, whatever the page holds.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; "
      "script-src 'unsafe-inline'\">"
      "<title>",
      EscapeHtml(name.substr(name.rfind('/') + 1)), " - Switchyard</title><style>", ReportStyle(),
      "</style></head><body>", RenderReportMain(input), "<script>", ReportScript(),
      "</script></body></html>\n");
}

}  // namespace switchyard::coordinator
