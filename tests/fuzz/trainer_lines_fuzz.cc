#include "common/check.h"
#include "tests/fuzz/fuzz_targets.h"
#include "worker/agent/host/lines.h"
#include "worker/agent/process/line_reader.h"

namespace switchyard::fuzz {

void TrainerLines(absl::string_view bytes) {
  if (bytes.empty()) return;
  constexpr size_t kMaxLine = 4096;
  const size_t chunk = 1 + static_cast<unsigned char>(bytes[0]);
  bytes.remove_prefix(1);
  agent::LineReader reader(kMaxLine);
  while (!bytes.empty()) {
    reader.Feed(
        bytes.substr(0, chunk),
        [](absl::string_view line) {
          SWITCHYARD_CHECK(!line.empty() && line.size() <= kMaxLine, "lines are bounded");
          const auto parsed = agent::ParseTrainerLine(line);
          if (parsed.ok()) (void)parsed->SerializeAsString();  // it goes on to the coordinator
          const auto data = agent::ParsePreparationLine(line);
          if (data.ok()) (void)data->SerializeAsString();
        },
        [] {});
    bytes.remove_prefix(std::min(chunk, bytes.size()));
  }
}

}  // namespace switchyard::fuzz
