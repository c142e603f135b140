#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/spec/model_files.h"
#include "tests/fuzz/fuzz_targets.h"
#include "worker/trainer/checkpoint/safetensors.h"

namespace switchyard::fuzz {
namespace {

// A model directory of this process, with one file that changes.
const std::string& ModelDirectory() {
  static const std::string& directory = *[] {
    // By its parent's number, so that run.sh can remove its own and no other's.
    auto* path = new std::string(absl::StrCat("/dev/shm/switchyard-fuzz-", ::getppid(), "-XXXXXX"));
    SWITCHYARD_CHECK(::mkdtemp(path->data()) != nullptr, "cannot make a directory in /dev/shm");
    std::ofstream(*path + "/tokenizer.json") << "{}";
    std::atexit([] { std::filesystem::remove_all(ModelDirectory()); });
    return path;
  }();
  return directory;
}

}  // namespace

void Safetensors(absl::string_view bytes) {
  const std::string path = ModelDirectory() + "/model.safetensors";
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  const bool looks_good = coordinator::InspectModelFiles(ModelDirectory()).problems.empty();
  const auto file = trainer::SafetensorsFile::Open(path);
  if (!file.ok()) {
    SWITCHYARD_CHECK(!file.status().message().empty(), "a refusal says why");
    return;
  }
  SWITCHYARD_CHECK(looks_good, "the coordinator refuses what the trainer reads");
  const auto& header = file->header();
  SWITCHYARD_CHECK(header.file_bytes() == static_cast<int64_t>(bytes.size()),
                   "the header describes the whole file");
  for (const auto& tensor : header.tensors) {
    const int64_t last = header.DataOffset(tensor) + (tensor.end - tensor.begin);
    SWITCHYARD_CHECK(tensor.begin <= tensor.end && last <= header.file_bytes(),
                     "every tensor lies in the file");
    std::string value(static_cast<size_t>(tensor.end - tensor.begin), '\0');
    SWITCHYARD_CHECK(file->Read(tensor, 0, tensor.numel(), value.data()).ok(),
                     "what is described can be read");
  }
}

}  // namespace switchyard::fuzz
