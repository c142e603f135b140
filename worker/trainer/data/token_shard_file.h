// One mapped shard of docs/data_format.md, checked so that every later access is inside of the
// mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/mapped_file.h"

namespace switchyard::trainer {

// What the index says of a shard.
struct TokenShardExpectation {
  int64_t sequence_length = 0;
  int64_t sequences = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
  int64_t bytes = 0;
  int64_t max_token_id = 0;
  std::string hash;  // XXH3 of the file, hexadecimal
};

// Row of the sequence table, as it lies in the file.
struct TokenShardRow {
  uint32_t tokens;
  uint32_t targets;
  uint64_t first_document;
};
static_assert(sizeof(TokenShardRow) == 16);

class TokenShardFile {
 public:
  // DataLoss names file and what is wrong. `verify_contents` reads the whole file once.
  static absl::StatusOr<TokenShardFile> Open(const std::string& path,
                                             const TokenShardExpectation& expected,
                                             bool verify_contents);

  // row(i)[1] is valid for i < n: its first_document ends the documents of sequence i.
  const TokenShardRow* row(int64_t i) const { return rows_ + i; }
  const uint32_t* documents() const { return documents_; }
  const uint64_t* target_bits(int64_t i) const { return targets_ + i * words_; }
  const int32_t* tokens(int64_t i) const { return tokens_ + i * sequence_length_; }

 private:
  explicit TokenShardFile(MappedFile file) : file_(std::move(file)) {}
  absl::Status CheckTables(const TokenShardExpectation& expected, const std::string& path,
                           int64_t documents) const;
  absl::Status CheckContents(const TokenShardExpectation& expected, const std::string& path) const;

  MappedFile file_;
  const TokenShardRow* rows_ = nullptr;
  const uint32_t* documents_ = nullptr;
  const uint64_t* targets_ = nullptr;
  const int32_t* tokens_ = nullptr;
  int64_t sequence_length_ = 0;
  int64_t words_ = 0;  // of one row of target bits
};

}  // namespace switchyard::trainer
