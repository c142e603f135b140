#include "worker/trainer/train/rank_context.h"

#include <ATen/Parallel.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/model/cuda_limits.h"
#include "worker/trainer/moe/routing_override.h"
#include "worker/trainer/moe/window_dispatcher.h"
#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {

void RefuseWhatNoGpuTrains(const RankOptions& options) {
  if (options.device != "cuda") return;
  std::vector<std::string> problems = CudaShapeProblems(options.shape);
  if (std::string problem =
          CudaTokensProblem(options.shape, options.micro_batch_sequences, options.sequence_length);
      !problem.empty()) {
    problems.push_back(std::move(problem));
  }
  if (options.expert_parallel > CudaLimits::kMaxExpertParallel) {
    problems.push_back(absl::StrFormat("expert_parallel is %d; on GPUs it must be at most %d",
                                       options.expert_parallel, CudaLimits::kMaxExpertParallel));
  }
  if (options.precision != Precision::kBfloat16) {
    problems.push_back("precision is \"float32\", but a GPU trains in \"bfloat16\"");
  }
  if (problems.empty()) return;
  throw TrainerError(ExitCode::kConfig, absl::StrJoin(problems, "; "));
}

std::unique_ptr<RankContext> ConnectRank(const RankOptions& options) {
  const ModelShape& shape = options.shape;
  const bool has_experts = shape.num_moe_layers() > 0;
  absl::StatusOr<Mesh> mesh =
      Mesh::Create(static_cast<int>(options.ranks), static_cast<int>(options.expert_parallel),
                   has_experts ? static_cast<int>(shape.num_experts) : 0);
  if (!mesh.ok()) throw TrainerError(ExitCode::kConfig, std::string(mesh.status().message()));

  const DispatchWindowShape window = {
      options.expert_parallel, options.micro_batch_sequences * options.sequence_length,
      shape.hidden_size, shape.experts_per_token, options.precision == Precision::kFloat32 ? 4 : 2};
  MeshGroupsOptions groups;
  groups.job_uid = options.job_uid;
  groups.epoch = options.epoch;
  groups.token = options.rendezvous_id;
  groups.rank = options.rank;
  groups.window_bytes = DispatchWindowLayout(window).bytes;

  auto context = std::make_unique<RankContext>();
  RefuseWhatNoGpuTrains(options);
  const at::Device device = SelectDevice(options.device, {options.rank, options.deterministic});
  if (device.is_cpu()) {
    context->groups = JoinMeshGroups(*mesh, groups);
    if (options.expert_parallel > 1) {
      context->dispatcher =
          MakeWindowDispatcher(*context->groups.window, shape.num_experts, window);
    } else if (has_experts) {
      context->dispatcher = MakeLocalDispatcher(shape.num_experts, shape.experts_per_token);
    }
  } else {
    context->device_groups = GpuBackend()->Join(*mesh, options.rendezvous_id, options.rank, window);
    if (has_experts) {
      context->dispatcher = context->device_groups->MakeDispatcher(shape.num_experts, window);
    }
  }
  if (has_experts && options.gate != "router") {
    context->dispatcher = MakeRoutingOverride(std::move(context->dispatcher),
                                              {.num_experts = shape.num_experts,
                                               .max_tokens = window.max_tokens,
                                               .top_k = shape.experts_per_token,
                                               .scattered = options.gate == "scattered",
                                               .device = device});
  }
  context->decoder = Decoder::Create({.shape = shape,
                                      .mesh = *mesh,
                                      .rank = options.rank,
                                      .communicators = &context->communicators(),
                                      .dispatcher = context->dispatcher.get(),
                                      .precision = options.precision,
                                      .optimizer = options.optimizer,
                                      .device = device,
                                      .max_sequences = options.micro_batch_sequences,
                                      .max_sequence_length = options.sequence_length,
                                      .gradient_accumulation = options.gradient_accumulation,
                                      .activations = options.activations});
  return context;
}

int SetThreads(int64_t wanted, int64_t local_ranks) {
  cpu_set_t cores;
  const int usable = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
  const int threads = static_cast<int>(
      wanted > 0 ? wanted : std::max<int64_t>(1, usable / std::max<int64_t>(1, local_ranks)));
  at::set_num_threads(threads);
  at::set_num_interop_threads(1);
  return threads;
}

int64_t PeakMemoryBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    int64_t kibibytes = 0;
    status >> kibibytes;
    return kibibytes << 10;
  }
  return 0;
}

}  // namespace switchyard::trainer
