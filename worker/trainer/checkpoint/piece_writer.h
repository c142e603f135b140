// Writes one process's pieces of files that several processes write together, and remembers their
// hashes.
//
// Writes that continue the one before become one piece. The pieces of all processes together must
// tile every file; checkpoint_verify.h checks that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/content_hash.h"
#include "common/unique_fd.h"

namespace switchyard::trainer {

struct FilePiece {
  std::string file;  // within the checkpoint
  int64_t offset = 0;
  int64_t bytes = 0;
  uint64_t hash = 0;
};

class PieceWriter {
 public:
  explicit PieceWriter(std::string directory) : directory_(std::move(directory)) {}

  // Ends the file before (fsync) and goes on with `name`, whose bytes of other processes are kept.
  absl::Status Open(const std::string& name);
  // Gives the open file its final size, should an abandoned attempt have left a longer one.
  absl::Status Resize(int64_t bytes);
  absl::Status Write(const void* data, int64_t bytes, int64_t offset);
  // A whole small file.
  absl::Status WriteFile(const std::string& name, absl::string_view contents);
  // Ends the last file.
  absl::Status Close();

  const std::vector<FilePiece>& pieces() const { return pieces_; }
  int64_t bytes_written() const { return bytes_written_; }

 private:
  void EndPiece();

  std::string directory_;
  std::string name_;
  UniqueFd fd_;
  ContentHasher hasher_;
  FilePiece piece_;
  std::vector<FilePiece> pieces_;
  int64_t bytes_written_ = 0;
};

}  // namespace switchyard::trainer
