// A block of lines at the bottom of a terminal that is drawn over itself. Lines above it scroll
// away as usual.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace switchyard::coordinator {

class LiveBlock {
 public:
  explicit LiveBlock(std::ostream& out) : out_(out) {}

  // Replaces the block. Lines must not be wider than the terminal.
  void Draw(const std::vector<std::string>& lines);
  // Writes a line above the block; Draw again afterwards.
  void PrintAbove(const std::string& line);
  // Leaves the block as it stands; what comes next is written below.
  void Keep() { height_ = 0; }
  void Erase();

 private:
  std::ostream& out_;
  size_t height_ = 0;
};

}  // namespace switchyard::coordinator
