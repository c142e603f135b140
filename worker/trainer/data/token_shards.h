// Prepared training data: packed token sequences in mapped files, written by tools/prepare_data.py.
//
// The format is docs/data_format.md. Token and target counts of every sequence come from a table at
// the head of each shard, so any rank knows the counts of any global batch without touching tokens.
// Knows nothing of torch, of ranks or of the order in which sequences are taken.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::trainer {

// One packed sequence; views into the mapping, valid as long as the TokenShards.
struct TokenSequence {
  std::span<const int32_t> tokens;  // [num_tokens <= S]; what is missing to S is padding
  std::span<const uint32_t>
      document_starts;  // position of each document's first token; the first is 0
  const uint64_t* target_bits =
      nullptr;  // bit t: token t is a target (never a document's first token)
  int64_t num_targets = 0;

  bool is_target(int64_t t) const { return (target_bits[t / 64] >> (t % 64)) & 1; }
};

struct TokenShardsOptions {
  int64_t sequence_length = 0;  // S that the job wants
  int64_t vocab_size = 0;       // the model's
  // Reads everything once: hash of every shard, token ids in range, table against contents. Without
  // it only header, sizes and tables are checked.
  bool verify_contents = true;
};

class TokenShards {
 public:
  // NotFound, InvalidArgument (made for another sequence length or vocabulary; names both values),
  // DataLoss (damaged; names the file).
  static absl::StatusOr<TokenShards> Open(const std::string& directory,
                                          const TokenShardsOptions& options);

  TokenShards(TokenShards&&) noexcept;
  TokenShards& operator=(TokenShards&&) noexcept;
  ~TokenShards();

  int64_t num_sequences() const { return num_sequences_; }
  int64_t sequence_length() const { return sequence_length_; }
  // Totals over all sequences.
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_targets() const { return num_targets_; }
  // Of data, tokenizer, template and options; 32 hexadecimal digits.
  const std::string& fingerprint() const { return fingerprint_; }

  // 0 <= i < num_sequences().
  TokenSequence sequence(int64_t i) const;
  int64_t num_tokens(int64_t i) const;
  int64_t num_targets(int64_t i) const;

 private:
  class Shard;
  TokenShards();
  const Shard& Locate(int64_t i, int64_t* local) const;

  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<int64_t> first_sequence_;  // of each shard
  int64_t num_sequences_ = 0;
  int64_t sequence_length_ = 0;
  int64_t num_tokens_ = 0;
  int64_t num_targets_ = 0;
  std::string fingerprint_;
};

}  // namespace switchyard::trainer
