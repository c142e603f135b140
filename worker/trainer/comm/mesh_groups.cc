#include "worker/trainer/comm/mesh_groups.h"

#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "worker/trainer/comm/shm_communicator.h"
#include "worker/trainer/comm/shm_window.h"
#include "worker/trainer/comm/single_communicator.h"
#include "worker/trainer/comm/start_limit.h"

namespace switchyard::trainer {
namespace {

// Two of these a member stay in the cores' caches and still make barriers rare.
constexpr int64_t kStagingBytes = 512 << 10;

std::shared_ptr<ShmGroup> Join(const MeshGroupsOptions& options, const std::string& group,
                               const std::vector<int>& members, int64_t window_bytes) {
  ShmGroupOptions shm;
  shm.name = absl::StrFormat("switchyard-%s-%d-%s-%s", options.job_uid, options.epoch,
                             options.token, group);
  shm.rank =
      static_cast<int>(std::find(members.begin(), members.end(), options.rank) - members.begin());
  shm.size = static_cast<int>(members.size());
  shm.staging_bytes = kStagingBytes;
  shm.window_bytes = window_bytes;
  shm.join_limit = kStartLimit;
  return ShmGroup::Join(shm);
}

std::unique_ptr<Communicator> Connect(std::shared_ptr<ShmGroup> group) {
  return std::make_unique<ShmCommunicator>(std::move(group));
}

}  // namespace

MeshGroups JoinMeshGroups(const Mesh& mesh, const MeshGroupsOptions& options) {
  std::vector<int> world(mesh.world_size());
  for (int r = 0; r < mesh.world_size(); ++r) world[r] = r;
  const std::vector<int> ep = mesh.EpGroup(options.rank);
  const std::vector<int> edp = mesh.EdpGroup(options.rank);

  MeshGroups groups;
  MeshCommunicators& communicators = groups.communicators = MakeSingleMeshCommunicators();
  if (world.size() > 1) communicators.world = Connect(Join(options, "world", world, 0));
  if (ep.size() > 1) {
    const std::string name = absl::StrFormat("ep%d", mesh.edp_rank(options.rank));
    std::shared_ptr<ShmGroup> group = Join(options, name, ep, options.window_bytes);
    if (options.window_bytes > 0) groups.window = std::make_unique<ShmWindow>(group);
    communicators.ep = Connect(std::move(group));
  }
  if (edp.size() > 1) {
    communicators.edp =
        Connect(Join(options, absl::StrFormat("edp%d", mesh.ep_rank(options.rank)), edp, 0));
  }
  return groups;
}

std::string NewRendezvousToken() {
  unsigned char random[16];
  SWITCHYARD_CHECK(getrandom(random, sizeof(random), 0) == sizeof(random), "getrandom");
  std::string token;
  for (unsigned char byte : random) token += absl::StrFormat("%02x", byte);
  return token;
}

void RemoveSegments(const std::string& job_uid, int64_t epoch) {
  const std::string prefix = absl::StrFormat("switchyard-%s-%d-", job_uid, epoch);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) == 0) shm_unlink(("/" + name).c_str());
  }
}

int64_t StagingBytes(int world_size, int expert_parallel) {
  int64_t bytes = 0;
  for (int size : {world_size, expert_parallel, world_size / expert_parallel}) {
    if (size > 1) bytes += ShmGroup::SegmentBytes(size, kStagingBytes, 0);
  }
  return bytes;
}

}  // namespace switchyard::trainer
