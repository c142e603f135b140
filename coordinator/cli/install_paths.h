// Where the other parts of an installation are, seen from this program: in a build tree, or
// installed.
#pragma once

#include <string>

namespace switchyard::coordinator {

// Directory of the running program.
std::string ProgramDirectory();
// A Python tool: in SWITCHYARD_TOOLS, else in tools/ of a directory above this program, else in
// share/switchyard beside bin. Empty when there is none.
std::string FindTool(const std::string& name);
// SWITCHYARD_PYTHON, else .venv/bin/python above this program, else "python3".
std::string FindPython();

}  // namespace switchyard::coordinator
