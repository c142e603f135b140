#include "worker/trainer/data/token_shards.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/durable_file.h"
#include "common/status_macros.h"
#include "worker/trainer/data/token_shard_file.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

constexpr int64_t kMaxIndexBytes = int64_t{64} << 20;

absl::Status BadIndex(const std::string& path, const std::string& why) {
  return absl::DataLossError(
      absl::StrFormat("%s: %s; remove the directory and prepare the data again", path, why));
}

// Value of a field that must be a non-negative integer.
absl::StatusOr<int64_t> Count(const json& object, const char* key, const std::string& path) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned() || it->get<uint64_t>() > INT64_MAX) {
    return BadIndex(path, absl::StrFormat("%s must be a non-negative integer", key));
  }
  return it->get<int64_t>();
}

absl::StatusOr<std::string> Text(const json& object, const char* key, const std::string& path) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) {
    return BadIndex(path, absl::StrFormat("%s must be a string", key));
  }
  return it->get<std::string>();
}

}  // namespace

class TokenShards::Shard {
 public:
  explicit Shard(TokenShardFile file_in) : file(std::move(file_in)) {}
  TokenShardFile file;
};

TokenShards::TokenShards() = default;
TokenShards::TokenShards(TokenShards&&) noexcept = default;
TokenShards& TokenShards::operator=(TokenShards&&) noexcept = default;
TokenShards::~TokenShards() = default;

absl::StatusOr<TokenShards> TokenShards::Open(const std::string& directory,
                                              const TokenShardsOptions& options) {
  const std::string path = directory + "/index.json";
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxIndexBytes));
  const json index = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object()) return BadIndex(path, "not a JSON object");
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string format, Text(index, "format", path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t version, Count(index, "version", path));
  if (format != "switchyard-token-shards" || version != 1) {
    return BadIndex(path,
                    absl::StrFormat("format \"%s\" version %d is not \"switchyard-token-shards\" "
                                    "version 1",
                                    format, version));
  }
  TokenShards result;
  SWITCHYARD_ASSIGN_OR_RETURN(result.sequence_length_, Count(index, "sequence_length", path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t max_token_id, Count(index, "max_token_id", path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t sequences, Count(index, "sequences", path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t tokens, Count(index, "tokens", path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t targets, Count(index, "targets", path));
  SWITCHYARD_ASSIGN_OR_RETURN(result.fingerprint_, Text(index, "fingerprint", path));
  if (result.sequence_length_ != options.sequence_length) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: sequence_length of the data (%d) is not the job's (%d); prepare the "
                        "data with the job's "
                        "sequence_length",
                        path, result.sequence_length_, options.sequence_length));
  }
  if (max_token_id >= options.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: the data has token id %d, the model's vocab_size is %d; prepare the "
                        "data with this model's "
                        "tokenizer",
                        path, max_token_id, options.vocab_size));
  }
  const auto shards = index.find("shards");
  if (shards == index.end() || !shards->is_array()) return BadIndex(path, "shards must be a list");
  for (const json& entry : *shards) {
    if (!entry.is_object()) return BadIndex(path, "an entry of shards is not an object");
    TokenShardExpectation expected;
    SWITCHYARD_ASSIGN_OR_RETURN(const std::string name, Text(entry, "file", path));
    if (name.empty() || name.find('/') != std::string::npos || name == "..") {
      return BadIndex(path, absl::StrFormat("shard file \"%s\" is not a plain name", name));
    }
    SWITCHYARD_ASSIGN_OR_RETURN(expected.sequences, Count(entry, "sequences", path));
    SWITCHYARD_ASSIGN_OR_RETURN(expected.tokens, Count(entry, "tokens", path));
    SWITCHYARD_ASSIGN_OR_RETURN(expected.targets, Count(entry, "targets", path));
    SWITCHYARD_ASSIGN_OR_RETURN(expected.bytes, Count(entry, "bytes", path));
    SWITCHYARD_ASSIGN_OR_RETURN(expected.hash, Text(entry, "xxh3", path));
    expected.sequence_length = result.sequence_length_;
    expected.max_token_id = max_token_id;
    SWITCHYARD_ASSIGN_OR_RETURN(TokenShardFile file,
                                TokenShardFile::Open(absl::StrCat(directory, "/", name), expected,
                                                     options.verify_contents));
    result.first_sequence_.push_back(result.num_sequences_);
    result.num_sequences_ += expected.sequences;
    result.num_tokens_ += expected.tokens;
    result.num_targets_ += expected.targets;
    result.shards_.push_back(std::make_unique<Shard>(std::move(file)));
  }
  if (result.num_sequences_ != sequences || result.num_tokens_ != tokens ||
      result.num_targets_ != targets) {
    return BadIndex(
        path, absl::StrFormat("totals (%d sequences, %d tokens, %d targets) are not the sums over "
                              "shards (%d, %d, %d)",
                              sequences, tokens, targets, result.num_sequences_, result.num_tokens_,
                              result.num_targets_));
  }
  if (result.num_targets_ == 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: the data has no targets to train on", path));
  }
  return result;
}

const TokenShards::Shard& TokenShards::Locate(int64_t i, int64_t* local) const {
  SWITCHYARD_CHECK(i >= 0 && i < num_sequences_, "sequence out of range");
  const auto after = std::upper_bound(first_sequence_.begin(), first_sequence_.end(), i);
  const auto shard = static_cast<size_t>(after - first_sequence_.begin()) - 1;
  *local = i - first_sequence_[shard];
  return *shards_[shard];
}

TokenSequence TokenShards::sequence(int64_t i) const {
  int64_t local = 0;
  const TokenShardFile& file = Locate(i, &local).file;
  const TokenShardRow* row = file.row(local);
  TokenSequence sequence;
  sequence.tokens = {file.tokens(local), row->tokens};
  sequence.document_starts = {file.documents() + row->first_document,
                              static_cast<size_t>(row[1].first_document - row->first_document)};
  sequence.target_bits = file.target_bits(local);
  sequence.num_targets = row->targets;
  return sequence;
}

int64_t TokenShards::num_tokens(int64_t i) const {
  int64_t local = 0;
  const Shard& shard = Locate(i, &local);
  return shard.file.row(local)->tokens;
}

int64_t TokenShards::num_targets(int64_t i) const {
  int64_t local = 0;
  const Shard& shard = Locate(i, &local);
  return shard.file.row(local)->targets;
}

}  // namespace switchyard::trainer
