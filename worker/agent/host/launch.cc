#include "worker/agent/host/launch.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "worker/agent/log/log_spool.h"
#include "worker/agent/process/leftovers.h"

namespace switchyard::agent {
namespace {

constexpr absl::string_view kInherited[] = {"PATH",
                                            "HOME",
                                            "USER",
                                            "LANG",
                                            "TZ",
                                            "TMPDIR",
                                            "LD_LIBRARY_PATH",
                                            "CUDA_HOME",
                                            "HF_HOME",
                                            "ASAN_OPTIONS",
                                            "UBSAN_OPTIONS",
                                            "LSAN_OPTIONS"};
constexpr absl::string_view kInheritedPrefixes[] = {"LC_", "NCCL_", "SWITCHYARD_LOG_"};

std::vector<std::string> Environment(const LaunchOptions& options, const AttemptKey& key) {
  std::vector<std::string> environment = InheritedEnvironment();
  if (!options.fabric_interface.empty()) {
    std::erase_if(environment, [](const std::string& entry) {
      return absl::StartsWith(entry, "NCCL_SOCKET_IFNAME=");
    });
    // "=": this very interface, not every one whose name begins so.
    environment.push_back(absl::StrCat("NCCL_SOCKET_IFNAME==", options.fabric_interface));
  }
  environment.push_back(EnvironmentMark(options.work_dir, key));
  environment.push_back(absl::StrCat("OMP_NUM_THREADS=",
                                     std::max(1, options.cpu_cores / std::max(1, options.slots))));
  // Threads that spin for long at the end of a parallel region take the cores from those that still
  // work; threads that do not spin at all cost a wake-up at each region.
  environment.emplace_back("GOMP_SPINCOUNT=1000");
  return environment;
}

}  // namespace

std::vector<std::string> InheritedEnvironment() {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const absl::string_view text = *entry;
    const absl::string_view name = text.substr(0, text.find('='));
    const bool wanted =
        std::find(std::begin(kInherited), std::end(kInherited), name) != std::end(kInherited) ||
        std::any_of(std::begin(kInheritedPrefixes), std::end(kInheritedPrefixes),
                    [&](absl::string_view prefix) { return absl::StartsWith(name, prefix); });
    if (wanted) environment.emplace_back(text);
  }
  return environment;
}

SpawnRequest RankRequest(const LaunchOptions& options, const v1::Slot& slot,
                         const ProcessKey& key) {
  SpawnRequest request;
  request.program = options.trainer;
  request.directory = AttemptDir(options.work_dir, key.attempt);
  request.arguments = {"run", "--config", absl::StrCat(request.directory, "/", kTrainerConfigFile),
                       "--rank", absl::StrCat(key.rank)};
  request.environment = Environment(options, key.attempt);
  // An empty list hides the GPUs from a CPU rank, which must not take memory on them.
  std::string visible = slot.uuid();
  if (!visible.empty()) {
    for (const std::string& gpu : options.gpus)
      if (gpu != slot.uuid()) absl::StrAppend(&visible, ",", gpu);
    request.environment.emplace_back("SWITCHYARD_LOCAL_DEVICE=0");
  }
  request.environment.push_back(absl::StrCat("CUDA_VISIBLE_DEVICES=", visible));
  request.channel = Channel::kTrainer;
  return request;
}

SpawnRequest PreparationRequest(const LaunchOptions& options, const v1::PrepareData& prepare) {
  const AttemptKey key{prepare.job_uid(), prepare.epoch()};
  SpawnRequest request;
  request.directory = AttemptDir(options.work_dir, key);
  std::vector<std::string>& arguments = request.arguments;
  arguments = {options.prepare_data, "--model", prepare.model(), "--train", prepare.train()};
  if (!prepare.eval().empty()) arguments.insert(arguments.end(), {"--eval", prepare.eval()});
  arguments.insert(arguments.end(), {"--sequence-length", absl::StrCat(prepare.sequence_length()),
                                     "--output-dir", prepare.output_dir(), "--max-bad-lines",
                                     absl::StrCat(prepare.max_bad_lines())});
  if (prepare.train_on_all_tokens()) arguments.push_back("--train-on-all-tokens");
  if (prepare.disable_packing()) arguments.push_back("--disable-packing");
  if (options.data_cache_bytes > 0) {
    arguments.insert(arguments.end(), {"--cache-dir", absl::StrCat(options.work_dir, "/data-cache"),
                                       "--cache-bytes", absl::StrCat(options.data_cache_bytes)});
  }
  arguments.push_back("--progress-json");
  request.program = options.python;
  if (!options.self.empty()) {
    arguments.insert(arguments.begin(),
                     {"die-with-parent", absl::StrCat(getpid()), options.python});
    request.program = options.self;
  }
  request.environment = Environment(options, key);
  request.environment.insert(request.environment.end(),
                             {"PYTHONUNBUFFERED=1", "HF_HUB_OFFLINE=1", "CUDA_VISIBLE_DEVICES="});
  request.channel = Channel::kPreparation;
  return request;
}

}  // namespace switchyard::agent
