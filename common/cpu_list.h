// Lists of CPUs as the kernel writes them.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

// "0-3,8,10-11", ascending; empty for text that is not such a list, or names a CPU beyond those
// that an affinity can hold.
std::vector<int> ParseCpuList(const std::string& text);
// The other way round.
std::string CpuListText(const std::vector<int>& cpus);

// CPUs that the calling thread may use, ascending.
std::vector<int> UsableCpus();

}  // namespace switchyard
