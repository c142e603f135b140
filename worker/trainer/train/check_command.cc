#include "worker/trainer/train/check_command.h"

#include <algorithm>

#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/exit_code.h"
#include "worker/trainer/train/local_ranks.h"
#include "worker/trainer/train/rank_channels.h"
#include "worker/trainer/train/rank_context.h"

namespace switchyard::trainer {
namespace {

RunEnd CheckRank(const CheckCommandOptions& options, RankChannels& channels) {
  CheckOptions check = options.check;
  check.rank = std::max(0, options.rank);
  check.device = options.device;
  check.precision = options.dtype == "float32" ? Precision::kFloat32 : Precision::kBfloat16;
  check.activations = ActivationMemoryByName(options.activation_memory);
  SetThreads(options.threads, check.ranks);
  check.rendezvous_id = AgreeOnRendezvous(channels, check.rank, check.ranks, options.device);
  RunCheck(check);
  return {ExitCode::kOk, "", check.steps};
}

}  // namespace

int CheckCommand(const CheckCommandOptions& options, const std::vector<std::string>& arguments) {
  if (options.rank < 0 && options.check.ranks > 1) {
    return RunLocalRanks({options.check.ranks, arguments, nullptr});
  }
  if (options.rank >= 0) DieWithParent();
  BecomeProgramFor(options.device);
  RankChannels channels(/*inherited=*/options.rank >= 0);
  const RunEnd end = Guarded([&] { return CheckRank(options, channels); });
  return end.code == ExitCode::kOk ? 0 : SayExit(channels, end);
}

}  // namespace switchyard::trainer
