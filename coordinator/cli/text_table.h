// Columns of text, aligned; and the width of text on a terminal.
#pragma once

#include <string>
#include <vector>

namespace switchyard::coordinator {

// Columns that `text` takes: UTF-8 sequences count one, ANSI escapes nothing.
int DisplayWidth(const std::string& text);
// At most `width` columns of `text`; escapes are kept, a cut is marked by "~" and all colours end.
std::string Truncate(const std::string& text, int width);
// Control characters, which a job's name or log must not send to a terminal, as "?"; tabs stay.
std::string Printable(const std::string& text);

class TextTable {
 public:
  TextTable() = default;
  explicit TextTable(std::vector<std::string> header);

  void AddRow(std::vector<std::string> row);
  // Numbers read best aligned to the right.
  void AlignRight(int column);
  // Lines with `indent` before each; two blanks between columns, none at a line's end.
  std::string Render(const std::string& indent = "") const;
  bool empty() const { return rows_.empty(); }

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> right_;
};

}  // namespace switchyard::coordinator
