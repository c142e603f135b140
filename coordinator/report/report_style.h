// The style sheet and the small hover script of the report, inlined into its page.
#pragma once

namespace switchyard::coordinator {

const char* ReportStyle();
const char* ReportScript();

}  // namespace switchyard::coordinator
