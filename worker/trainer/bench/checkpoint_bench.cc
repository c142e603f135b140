#include "worker/trainer/bench/checkpoint_bench.h"

#include <ATen/ops/full.h>
#include <ATen/ops/sum.h>
#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/durable_file.h"
#include "worker/trainer/checkpoint/checkpoint_save.h"
#include "worker/trainer/checkpoint/model_io.h"
#include "worker/trainer/model/time_mark.h"
#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {
namespace {

namespace fs = std::filesystem;

// Of all bytes: enough to notice one that was not loaded. Piece by piece, since the sum wants them
// in eight times their size.
int64_t Fingerprint(const at::Tensor& values) {
  constexpr int64_t kPiece = int64_t{1} << 28;
  const at::Tensor bytes = values.view(at::kByte);
  int64_t sum = 0;
  for (int64_t begin = 0; begin < bytes.numel(); begin += kPiece) {
    const int64_t count = std::min(kPiece, bytes.numel() - begin);
    sum += at::sum(bytes.narrow(0, begin, count), at::kLong).item<int64_t>();
  }
  return sum;
}

int64_t SumOverRanks(Communicator& world, int64_t value) {
  const at::Tensor sum =
      at::full({1}, value, at::TensorOptions().dtype(at::kLong).device(world.device()));
  world.AllReduce(sum);
  return sum.item<int64_t>();
}

// What is loaded should come from the disk.
void DropFromPageCache(const std::string& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    const absl::StatusOr<UniqueFd> file = OpenToRead(entry.path().string());
    if (file.ok()) posix_fadvise(file->get(), 0, 0, POSIX_FADV_DONTNEED);
  }
}

void Say(const char* what, int64_t bytes, double seconds) {
  std::printf("%-12s %.2f GB in %.2f s, %.2f GB/s\n", what, static_cast<double>(bytes) / 1e9,
              seconds, static_cast<double>(bytes) / 1e9 / seconds);
}

}  // namespace

void BenchCheckpoint(const BenchOptions& options, RankContext& context,
                     ShardedOptimizer& optimizer) {
  Communicator& world = *context.communicators().world;
  const bool first = world.rank() == 0;
  const ParameterRegistry& parameters = context.decoder->parameters();
  at::Tensor values = context.decoder->parameters().values();
  const std::string stage = options.checkpoint + "/bench-checkpoint";
  if (first && fs::exists(stage)) {
    throw TrainerError(ExitCode::kOutput,
                       absl::StrCat(stage, " exists; remove it, or give another --checkpoint"));
  }
  const int64_t saved = Fingerprint(values);
  const int64_t host_before = PeakMemoryBytes();
  world.Barrier();

  TimeMark begin(at::kCPU);
  const absl::StatusOr<int64_t> bytes = SaveCheckpoint(
      {.stage = stage, .source = options.model_config}, parameters, optimizer.CurrentState());
  if (!bytes.ok()) throw TrainerError(ExitCode::kOutput, std::string(bytes.status().message()));
  world.Barrier();
  const double save_seconds = TimeMark(at::kCPU).SecondsSince(begin);
  const int64_t all = SumOverRanks(world, *bytes);
  if (first) DropFromPageCache(stage);
  values.zero_();
  world.Barrier();

  begin.Record();
  const absl::Status loaded = LoadModel(stage, parameters, nullptr);
  if (!loaded.ok()) throw TrainerError(ExitCode::kModel, std::string(loaded.message()));
  world.Barrier();
  const double load_seconds = TimeMark(at::kCPU).SecondsSince(begin);
  if (Fingerprint(values) != saved)
    throw TrainerError(ExitCode::kModel, stage + " gave back other weights than were saved");
  const int64_t host = SumOverRanks(world, PeakMemoryBytes() - host_before);
  const int64_t weights = SumOverRanks(world, static_cast<int64_t>(values.nbytes()));
  world.Barrier();
  if (!first) return;
  fs::remove_all(stage);
  Say("saved", all, save_seconds);
  Say("loaded", weights, load_seconds);
  std::printf("host memory  %.1f MB a rank more at its peak than before\n",
              static_cast<double>(host) / 1e6 / world.size());
}

}  // namespace switchyard::trainer
