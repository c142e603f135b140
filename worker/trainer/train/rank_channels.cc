#include "worker/trainer/train/rank_channels.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>

#include <optional>

#include "absl/strings/str_format.h"
#include "common/log.h"
#include "worker/trainer/comm/mesh_groups.h"
#include "worker/trainer/comm/start_limit.h"
#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/lines.h"

namespace switchyard::trainer {
namespace {

constexpr int kReportFd = 3;
constexpr int kControlFd = 4;

UniqueFd Inherited(bool inherited, int fd) {
  return inherited && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? UniqueFd(fd) : UniqueFd();
}

}  // namespace

RankChannels::RankChannels(bool inherited)
    : reporter(Inherited(inherited, kReportFd)), control(Inherited(inherited, kControlFd)) {}

std::string AgreeOnRendezvous(RankChannels& channels, int rank, int64_t ranks,
                              const std::string& device) {
  if (ranks == 1) return "";
  if (rank == 0) {
    const bool gpu = device == "cuda" && GpuBackend() != nullptr;
    channels.reporter.Lifecycle(
        RendezvousLine(gpu ? GpuBackend()->NewRendezvousId() : NewRendezvousToken()));
  }
  const std::optional<std::string> id = channels.control.WaitForRendezvous(kStartLimit);
  if (!id) {
    throw TrainerError(ExitCode::kPeerLost,
                       absl::StrFormat("no rendezvous came within %d minutes: rank 0 did not start",
                                       kStartLimit.count()));
  }
  return *id;
}

int SayExit(RankChannels& channels, const RunEnd& end) {
  const bool good = ProcessExitCode(end.code) == 0;
  log::Write(good ? log::Level::kInfo : log::Level::kError, "trainer.exit",
             {{"code", ExitCodeName(end.code)}, {"message", end.message}, {"step", end.step}});
  channels.reporter.Lifecycle(ExitLine(ExitCodeName(end.code), end.message, end.step));
  return ProcessExitCode(end.code);
}

void DieWithParent() {
  // When the parent is gone already, fd 4 is at its end, which the control reader notices.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
}

}  // namespace switchyard::trainer
