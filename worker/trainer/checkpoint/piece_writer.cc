#include "worker/trainer/checkpoint/piece_writer.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard::trainer {
namespace {

// Longest piece; lets a check divide the work among ranks.
constexpr int64_t kMaxPiece = int64_t{256} << 20;

}  // namespace

absl::Status PieceWriter::Open(const std::string& name) {
  SWITCHYARD_RETURN_IF_ERROR(Close());
  SWITCHYARD_ASSIGN_OR_RETURN(fd_, OpenToWriteParts(directory_ + "/" + name));
  name_ = name;
  return absl::OkStatus();
}

absl::Status PieceWriter::Resize(int64_t bytes) {
  if (::ftruncate(fd_.get(), bytes) != 0) {
    return FileError(errno, "resize", directory_ + "/" + name_, bytes);
  }
  return absl::OkStatus();
}

absl::Status PieceWriter::Write(const void* data, int64_t bytes, int64_t offset) {
  if (bytes == 0) return absl::OkStatus();
  SWITCHYARD_RETURN_IF_ERROR(WriteAt(fd_.get(), directory_ + "/" + name_, data, bytes, offset));
  const bool continues = piece_.bytes > 0 && offset == piece_.offset + piece_.bytes;
  if (!continues || piece_.bytes + bytes > kMaxPiece) {
    EndPiece();
    piece_ = {name_, offset, 0, 0};
  }
  hasher_.Add(data, static_cast<size_t>(bytes));
  piece_.bytes += bytes;
  bytes_written_ += bytes;
  return absl::OkStatus();
}

absl::Status PieceWriter::WriteFile(const std::string& name, absl::string_view contents) {
  SWITCHYARD_RETURN_IF_ERROR(Close());
  SWITCHYARD_RETURN_IF_ERROR(WriteFileDurably(directory_ + "/" + name, contents));
  pieces_.push_back({name, 0, static_cast<int64_t>(contents.size()),
                     ContentHash(contents.data(), contents.size())});
  bytes_written_ += static_cast<int64_t>(contents.size());
  return absl::OkStatus();
}

absl::Status PieceWriter::Close() {
  if (!fd_.valid()) return absl::OkStatus();
  EndPiece();
  SWITCHYARD_RETURN_IF_ERROR(SyncFile(fd_.get(), directory_ + "/" + name_));
  fd_.Reset();
  return absl::OkStatus();
}

void PieceWriter::EndPiece() {
  if (piece_.bytes > 0) {
    piece_.hash = hasher_.Digest();
    pieces_.push_back(piece_);
  }
  piece_ = {};
  hasher_.Reset();
}

}  // namespace switchyard::trainer
