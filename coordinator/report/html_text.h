// Text that may stand in HTML and SVG: everything that comes from users or nodes goes through here.
#pragma once

#include <string>
#include <vector>

namespace switchyard::coordinator {

// &, <, >, quotes as entities; control characters and bytes that are not UTF-8 as U+FFFD.
std::string EscapeHtml(const std::string& text);
// A table; cells are HTML already. `numeric` columns are aligned to the right.
std::string HtmlTable(const std::vector<std::string>& header,
                      const std::vector<std::vector<std::string>>& rows,
                      const std::vector<int>& numeric = {});
// A card with a title; `note` is a muted line under it.
std::string HtmlCard(const std::string& title, const std::string& note, const std::string& body,
                     const std::string& extra_class = "");

// A horizontal bar of segments, and one segment of it: its begin and length as shares of the bar's
// width, 0 to 1. SVG, not inline styles, which a strict page does not allow.
std::string HtmlBar(const std::string& segments);
std::string HtmlBarSegment(const std::string& css_class, double begin, double share,
                           const std::string& title);

}  // namespace switchyard::coordinator
