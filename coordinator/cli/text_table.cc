#include "coordinator/cli/text_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Bytes of the ANSI escape at `i`, 0 when there is none.
size_t EscapeLength(const std::string& text, size_t i) {
  if (text[i] != '\033' || i + 1 >= text.size() || text[i + 1] != '[') return 0;
  size_t end = i + 2;
  while (end < text.size() && (text[end] < '@' || text[end] > '~')) ++end;
  return std::min(end + 1, text.size()) - i;
}

}  // namespace

int DisplayWidth(const std::string& text) {
  int width = 0;
  for (size_t i = 0; i < text.size();) {
    if (const size_t escape = EscapeLength(text, i)) {
      i += escape;
      continue;
    }
    width += IsContinuation(text[i]) ? 0 : 1;
    ++i;
  }
  return width;
}

std::string Truncate(const std::string& text, int width) {
  if (DisplayWidth(text) <= width) return text;
  std::string result;
  int used = 0;
  for (size_t i = 0; i < text.size();) {
    if (const size_t escape = EscapeLength(text, i)) {
      result.append(text, i, escape);
      i += escape;
      continue;
    }
    if (!IsContinuation(text[i]) && ++used >= width) break;
    result.push_back(text[i]);
    ++i;
  }
  if (width > 0) result.push_back('~');
  if (text.find('\033') != std::string::npos) result += "\033[0m";
  return result;
}

std::string Printable(const std::string& text) {
  std::string result = text;
  for (char& c : result) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) c = '?';
  }
  return result;
}

TextTable::TextTable(std::vector<std::string> header) : header_(std::move(header)) {}

void TextTable::AddRow(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

void TextTable::AlignRight(int column) {
  if (static_cast<int>(right_.size()) <= column) right_.resize(column + 1, false);
  right_[column] = true;
}

std::string TextTable::Render(const std::string& indent) const {
  std::vector<std::vector<std::string>> lines;
  if (!header_.empty()) lines.push_back(header_);
  lines.insert(lines.end(), rows_.begin(), rows_.end());
  std::vector<int> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()), 0);
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(line[i]));
  }
  std::string text;
  for (const auto& line : lines) {
    std::string rendered = indent;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string pad(widths[i] - DisplayWidth(line[i]), ' ');
      const bool right = i < right_.size() && right_[i];
      absl::StrAppend(&rendered, i > 0 ? "  " : "", right ? pad : "", line[i], right ? "" : pad);
    }
    while (!rendered.empty() && rendered.back() == ' ') rendered.pop_back();
    absl::StrAppend(&text, rendered, "\n");
  }
  return text;
}

}  // namespace switchyard::coordinator
