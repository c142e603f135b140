// The sections of the report, each a pure function to HTML.
#pragma once

#include <string>

#include "coordinator/report/html_report.h"

namespace switchyard::coordinator {

// report_charts.cc
std::string LossSection(const ReportInput& input);
std::string ThroughputSection(const ReportInput& input);
std::string OptimizerSection(const ReportInput& input);  // learning rate, gradient norm
std::string RouterSection(const ReportInput& input);     // max over mean, entropy
std::string ExpertSection(const ReportInput& input);

// report_resources.cc
std::string MemorySection(const ReportInput& input);
std::string PhaseSection(const ReportInput& input);

// report_tables.cc
std::string HeaderSection(const ReportInput& input);  // title, reason, figures
std::string PlanSection(const ReportInput& input);
std::string AttemptSection(const ReportInput& input);
std::string EventSection(const ReportInput& input);
std::string SpecSection(const ReportInput& input);

}  // namespace switchyard::coordinator
