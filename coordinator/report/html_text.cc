#include "coordinator/report/html_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/utf8.h"

namespace switchyard::coordinator {
std::string EscapeHtml(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8SequenceLength(text, i);
    const char c = text[i];
    if (length == 0) {
      result += kUtf8Replacement;
      ++i;
      continue;
    }
    if (length > 1) {
      result.append(text, i, length);
    } else if (c == '&') {
      result += "&amp;";
    } else if (c == '<') {
      result += "&lt;";
    } else if (c == '>') {
      result += "&gt;";
    } else if (c == '"') {
      result += "&quot;";
    } else if (c == '\'') {
      result += "&#39;";
    } else if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      result += kUtf8Replacement;
    } else {
      result += c;
    }
    i += length;
  }
  return result;
}

std::string HtmlTable(const std::vector<std::string>& header,
                      const std::vector<std::vector<std::string>>& rows,
                      const std::vector<int>& numeric) {
  const auto is_numeric = [&](size_t column) {
    return std::find(numeric.begin(), numeric.end(), static_cast<int>(column)) != numeric.end();
  };
  std::string html = "<div class=\"scroll\"><table>";
  if (!header.empty()) {
    html += "<thead><tr>";
    for (size_t i = 0; i < header.size(); ++i) {
      absl::StrAppend(&html, is_numeric(i) ? "<th class=\"n\">" : "<th>", header[i], "</th>");
    }
    html += "</tr></thead>";
  }
  html += "<tbody>";
  for (const auto& row : rows) {
    html += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&html, is_numeric(i) ? "<td class=\"n\">" : "<td>", row[i], "</td>");
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>\n";
}

std::string HtmlCard(const std::string& title, const std::string& note, const std::string& body,
                     const std::string& extra_class) {
  return absl::StrCat("<section class=\"card ", extra_class, "\"><h2>", title, "</h2>",
                      note.empty() ? "" : absl::StrCat("<p class=\"note\">", note, "</p>"), body,
                      "</section>\n");
}

std::string HtmlBar(const std::string& segments) {
  return absl::StrCat("<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\">",
                      segments, "</svg>");
}

std::string HtmlBarSegment(const std::string& css_class, double begin, double share,
                           const std::string& title) {
  const double from = std::clamp(begin, 0.0, 1.0);
  return absl::StrFormat(
      "<rect class=\"%s\" x=\"%.1f\" y=\"0\" width=\"%.1f\" height=\"10\"><title>%s</title></rect>",
      css_class, 1000 * from, 1000 * std::clamp(share, 0.0, 1.0 - from), title);
}

}  // namespace switchyard::coordinator
