#include "coordinator/report/html_report.h"
namespace switchyard::coordinator {
std::string RenderHtmlReport(const ReportInput& input) { return input.job.name(); }
}
