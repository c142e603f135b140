#include "coordinator/report/html_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// Bytes of the UTF-8 sequence at `i`, 0 when there is none. Overlong forms and surrogates are none.
size_t SequenceLength(const std::string& text, size_t i) {
  const auto byte = [&](size_t k) {
    return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u;
  };
  const auto continues = [&](size_t k) { return (byte(k) & 0xC0) == 0x80; };
  const unsigned first = byte(i);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(i + 1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if ((first == 0xE0 && byte(i + 1) < 0xA0) || (first == 0xED && byte(i + 1) > 0x9F)) return 0;
    return continues(i + 1) && continues(i + 2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if ((first == 0xF0 && byte(i + 1) < 0x90) || (first == 0xF4 && byte(i + 1) > 0x8F)) return 0;
    return continues(i + 1) && continues(i + 2) && continues(i + 3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string EscapeHtml(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t length = SequenceLength(text, i);
    const char c = text[i];
    if (length == 0) {
      result += kReplacement;
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
      result += kReplacement;
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

}  // namespace switchyard::coordinator
