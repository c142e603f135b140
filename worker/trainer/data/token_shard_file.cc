#include "worker/trainer/data/token_shard_file.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_format.h"
#include "common/content_hash.h"
#include "common/status_macros.h"

namespace switchyard::trainer {
namespace {

constexpr char kMagic[] = "SWYTOK01";
constexpr int64_t kAlignment = 64;
// Keeps every size computed below far from overflow.
constexpr uint64_t kMaxCount = uint64_t{1} << 40;

struct FileHeader {
  char magic[8];
  uint32_t version;
  uint32_t sequence_length;
  uint64_t sequences;
  uint64_t documents;
  char zeros[32];
};
static_assert(sizeof(FileHeader) == 64);

int64_t Align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

absl::Status Damaged(const std::string& path, const std::string& why) {
  return absl::DataLossError(
      absl::StrFormat("%s: %s; remove the directory and prepare the data again", path, why));
}

}  // namespace

absl::StatusOr<TokenShardFile> TokenShardFile::Open(const std::string& path,
                                                    const TokenShardExpectation& expected,
                                                    bool verify_contents) {
  SWITCHYARD_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  if (mapped.size() != expected.bytes) {
    return Damaged(
        path, absl::StrFormat("has %d bytes, index.json says %d", mapped.size(), expected.bytes));
  }
  FileHeader header;
  if (mapped.size() < static_cast<int64_t>(sizeof(header)))
    return Damaged(path, "too short for a header");
  std::memcpy(&header, mapped.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(header.magic)) != 0 || header.version != 1) {
    return Damaged(path, "not a version 1 token shard");
  }
  if (header.sequence_length != expected.sequence_length ||
      header.sequences != static_cast<uint64_t>(expected.sequences)) {
    return Damaged(path,
                   absl::StrFormat("header says %d sequences of %d tokens, index.json %d of %d",
                                   header.sequences, header.sequence_length, expected.sequences,
                                   expected.sequence_length));
  }
  if (header.sequence_length == 0 || header.sequences > kMaxCount / header.sequence_length ||
      header.documents > kMaxCount) {
    return Damaged(path, "header counts are out of range");
  }
  const auto n = static_cast<int64_t>(header.sequences);
  const auto d = static_cast<int64_t>(header.documents);
  const int64_t s = header.sequence_length;
  const int64_t words = (s + 63) / 64;
  const int64_t rows_at = kAlignment;
  const int64_t documents_at =
      rows_at + Align((n + 1) * static_cast<int64_t>(sizeof(TokenShardRow)));
  const int64_t targets_at = documents_at + Align(d * 4);
  const int64_t tokens_at = targets_at + Align(n * words * 8);
  const int64_t end = tokens_at + n * s * 4;
  if (end != mapped.size()) {
    return Damaged(
        path, absl::StrFormat("header asks for %d bytes, the file has %d", end, mapped.size()));
  }
  TokenShardFile file(std::move(mapped));
  const std::byte* base = file.file_.data();
  file.rows_ = reinterpret_cast<const TokenShardRow*>(base + rows_at);
  file.documents_ = reinterpret_cast<const uint32_t*>(base + documents_at);
  file.targets_ = reinterpret_cast<const uint64_t*>(base + targets_at);
  file.tokens_ = reinterpret_cast<const int32_t*>(base + tokens_at);
  file.sequence_length_ = s;
  file.words_ = words;
  if (verify_contents) {
    const std::string hash = HashText(ContentHash(base, static_cast<size_t>(file.file_.size())));
    if (hash != expected.hash) {
      return Damaged(path, absl::StrFormat("hash %s is not %s of index.json: the file changed",
                                           hash, expected.hash));
    }
  }
  SWITCHYARD_RETURN_IF_ERROR(file.CheckTables(expected, path, d));
  if (verify_contents) SWITCHYARD_RETURN_IF_ERROR(file.CheckContents(expected, path));
  return file;
}

absl::Status TokenShardFile::CheckTables(const TokenShardExpectation& expected,
                                         const std::string& path, int64_t documents) const {
  int64_t tokens = 0;
  int64_t targets = 0;
  if (rows_[0].first_document != 0 ||
      rows_[expected.sequences].first_document != static_cast<uint64_t>(documents)) {
    return Damaged(path, "the sequence table does not cover the documents");
  }
  for (int64_t i = 0; i < expected.sequences; ++i) {
    const uint64_t first = rows_[i].first_document;
    const uint64_t last = rows_[i + 1].first_document;
    bool good = first < last && last <= static_cast<uint64_t>(documents) &&
                rows_[i].tokens <= sequence_length_ && rows_[i].targets <= rows_[i].tokens;
    for (uint64_t document = first; good && document < last; ++document) {
      good = document == first ? documents_[document] == 0
                               : documents_[document] > documents_[document - 1];
      good = good && documents_[document] < rows_[i].tokens;
    }
    if (!good)
      return Damaged(path, absl::StrFormat("sequence %d has impossible counts or documents", i));
    tokens += rows_[i].tokens;
    targets += rows_[i].targets;
  }
  if (tokens != expected.tokens || targets != expected.targets) {
    return Damaged(path, absl::StrFormat("has %d tokens and %d targets, index.json says %d and %d",
                                         tokens, targets, expected.tokens, expected.targets));
  }
  return absl::OkStatus();
}

absl::Status TokenShardFile::CheckContents(const TokenShardExpectation& expected,
                                           const std::string& path) const {
  for (int64_t i = 0; i < expected.sequences; ++i) {
    const int32_t* ids = tokens(i);
    int32_t low = 0;
    int32_t high = 0;
    for (int64_t t = 0; t < sequence_length_; ++t) {
      low = std::min(low, ids[t]);
      high = std::max(high, ids[t]);
    }
    if (low < 0 || high > expected.max_token_id) {
      return Damaged(path, absl::StrFormat("sequence %d has a token id outside of [0, %d]", i,
                                           expected.max_token_id));
    }
    const uint64_t* bits = target_bits(i);
    int64_t count = 0;
    for (int64_t word = 0; word < words_; ++word) count += std::popcount(bits[word]);
    bool good = count == rows_[i].targets;
    for (uint64_t document = rows_[i].first_document; document < rows_[i + 1].first_document;
         ++document) {
      const uint32_t start = documents_[document];
      good = good && ((bits[start / 64] >> (start % 64)) & 1) == 0;
    }
    for (int64_t t = rows_[i].tokens; t < words_ * 64; ++t)
      good = good && ((bits[t / 64] >> (t % 64)) & 1) == 0;
    if (!good)
      return Damaged(path,
                     absl::StrFormat("the targets of sequence %d contradict its table row", i));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::trainer
