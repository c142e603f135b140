#include "coordinator/cli/install_paths.h"

#include <cstdlib>
#include <filesystem>

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;

// `relative` under the program's directory or one of the three above it (build/bin -> checkout).
std::string FindAbove(const std::string& relative) {
  std::error_code error;
  fs::path directory = ProgramDirectory();
  for (int level = 0; level < 4 && !directory.empty();
       ++level, directory = directory.parent_path()) {
    if (fs::exists(directory / relative, error)) return (directory / relative).string();
  }
  return "";
}

}  // namespace

std::string ProgramDirectory() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path().string();
}

std::string FindTool(const std::string& name) {
  std::error_code error;
  if (const char* directory = std::getenv("SWITCHYARD_TOOLS")) {
    const fs::path path = fs::path(directory) / name;
    return fs::exists(path, error) ? path.string() : "";
  }
  const std::string in_tree = FindAbove("tools/" + name);
  return in_tree.empty() ? FindAbove("share/switchyard/" + name) : in_tree;
}

std::string FindPython() {
  if (const char* python = std::getenv("SWITCHYARD_PYTHON")) return python;
  std::string in_tree = FindAbove(".venv/bin/python");
  if (!in_tree.empty()) return in_tree;
  // What switchyard-install-runtime made.
  constexpr char kRuntime[] = "/opt/switchyard/runtime/current/venv/bin/python";
  std::error_code error;
  return fs::exists(kRuntime, error) ? kRuntime : "python3";
}

}  // namespace switchyard::coordinator
