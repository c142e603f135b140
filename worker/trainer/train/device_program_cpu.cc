// The program for CPUs: no GPU backend, but it knows where its sibling is.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "worker/trainer/train/device_backend.h"

namespace switchyard::trainer {

DeviceBackend* GpuBackend() { return nullptr; }

void BecomeProgramFor(const std::string& device) {
  if (device != "cuda") return;
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::vector<char*> arguments;
  for (size_t at = 0; at < text.size(); at = text.find('\0', at) + 1)
    arguments.push_back(&text[at]);
  arguments.push_back(nullptr);
  std::error_code ignored;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", ignored);
  execv((self.parent_path() / "switchyard-trainer-cuda").c_str(), arguments.data());
}

}  // namespace switchyard::trainer
