// The command line program `switchyard`.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

#include "common/rpc/credentials.h"
#include "coordinator/cli/program.h"

namespace {

// What the locale says; a C locale cannot show block characters.
bool LocaleIsUtf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    return strcasestr(value, "utf-8") != nullptr || strcasestr(value, "utf8") != nullptr;
  }
  return false;
}

int TerminalWidth() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 100;
}

}  // namespace

int main(int argc, char** argv) {
  switchyard::rpc::AllowOnlyTls13();
  switchyard::coordinator::CliIo io{.out = std::cout, .err = std::cerr};
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::strcmp(term, "dumb") == 0;
  io.terminal = isatty(STDOUT_FILENO) == 1 && !dumb;
  io.color = io.terminal && std::getenv("NO_COLOR") == nullptr;
  io.unicode = !io.terminal || LocaleIsUtf8();
  io.width = TerminalWidth();
  return switchyard::coordinator::RunCli(std::vector<std::string>(argv + 1, argv + argc), io);
}
