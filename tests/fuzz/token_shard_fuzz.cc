#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/content_hash.h"
#include "common/unique_fd.h"
#include "tests/fuzz/fuzz_targets.h"
#include "worker/trainer/data/token_shard_file.h"

namespace switchyard::fuzz {
namespace {

template <typename T>
T ReadAt(absl::string_view bytes, size_t offset) {
  T value{};
  if (offset + sizeof(T) <= bytes.size()) std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace

void TokenShard(absl::string_view bytes) {
  if (bytes.size() < 16) return;
  trainer::TokenShardExpectation expected;
  expected.tokens = ReadAt<uint32_t>(bytes, 0);
  expected.targets = ReadAt<uint32_t>(bytes, 4);
  expected.max_token_id = ReadAt<uint32_t>(bytes, 8);
  const bool verify = bytes[12] % 2 == 0;
  const absl::string_view file = bytes.substr(16);
  // An index that agrees with the file, so that the checks behind it are reached.
  expected.sequence_length = ReadAt<uint32_t>(file, 12);
  expected.sequences = static_cast<int64_t>(ReadAt<uint64_t>(file, 16));
  expected.bytes = static_cast<int64_t>(file.size());
  expected.hash = HashText(ContentHash(file.data(), file.size()));
  const UniqueFd fd(::memfd_create("shard", MFD_CLOEXEC));
  SWITCHYARD_CHECK(::write(fd.get(), file.data(), file.size()) == static_cast<ssize_t>(file.size()),
                   "cannot write to memory");
  const auto shard =
      trainer::TokenShardFile::Open(absl::StrCat("/proc/self/fd/", fd.get()), expected, verify);
  if (!shard.ok()) {
    SWITCHYARD_CHECK(!shard.status().message().empty(), "a refusal says why");
    return;
  }
  // Everything that training would touch.
  uint64_t sum = 0;
  for (int64_t i = 0; i < expected.sequences; ++i) {
    const trainer::TokenShardRow* row = shard->row(i);
    for (uint64_t d = row[0].first_document; d < row[1].first_document; ++d) {
      SWITCHYARD_CHECK(shard->documents()[d] < row->tokens, "documents lie in their sequence");
      sum += shard->documents()[d];
    }
    for (uint32_t t = 0; t < row->tokens; ++t) {
      const int32_t id = shard->tokens(i)[t];
      SWITCHYARD_CHECK(!verify || (id >= 0 && id <= expected.max_token_id), "ids are in range");
      sum += static_cast<uint64_t>(id) + ((shard->target_bits(i)[t / 64] >> (t % 64)) & 1);
    }
  }
  [[maybe_unused]] static volatile uint64_t sink;
  sink = sum;
}

}  // namespace switchyard::fuzz
