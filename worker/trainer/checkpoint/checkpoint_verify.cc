#include "worker/trainer/checkpoint/checkpoint_verify.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/checkpoint_publish.h"
#include "common/durable_file.h"
#include "common/status_macros.h"
#include "worker/trainer/checkpoint/checkpoint_metadata.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

constexpr int64_t kMaxListBytes = int64_t{1} << 30;
constexpr int64_t kReadBytes = int64_t{4} << 20;

// Fails on any shape but [["file", offset, bytes, "hash"], ...].
absl::StatusOr<std::vector<FilePiece>> ReadPieces(const std::string& path) {
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxListBytes));
  const json list = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const absl::Status bad = absl::DataLossError(absl::StrFormat("%s: not a list of pieces", path));
  if (!list.is_array()) return bad;
  std::vector<FilePiece> pieces;
  for (const json& row : list) {
    if (!row.is_array() || row.size() != 4 || !row[0].is_string() || !row[1].is_number_unsigned() ||
        !row[2].is_number_unsigned() || !row[3].is_string()) {
      return bad;
    }
    FilePiece piece{row[0], row[1], row[2], 0};
    const std::string hash = row[3];
    if (hash.size() != 16 || !absl::SimpleHexAtoi(hash, &piece.hash) || piece.offset < 0 ||
        piece.bytes < 0 || piece.offset > INT64_MAX - piece.bytes ||
        piece.file.find("..") != std::string::npos) {
      return bad;
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

absl::Status CheckTiling(const std::string& path, const std::vector<FilePiece>& pieces,
                         int64_t size) {
  int64_t next = 0;
  for (const FilePiece& piece : pieces) {
    if (piece.offset != next) {
      return absl::DataLossError(absl::StrFormat("%s: the written pieces %s byte %d", path,
                                                 piece.offset > next ? "leave out" : "overlap at",
                                                 std::min(next, piece.offset)));
    }
    next += piece.bytes;
  }
  if (size != next) {
    return absl::DataLossError(
        absl::StrFormat("%s has %d bytes, %d were written", path, size, next));
  }
  return absl::OkStatus();
}

absl::Status CheckHash(int fd, const std::string& path, const FilePiece& piece,
                       std::vector<char>& buffer) {
  ContentHasher hasher;
  for (int64_t done = 0; done < piece.bytes;) {
    const int64_t bytes = std::min(kReadBytes, piece.bytes - done);
    SWITCHYARD_RETURN_IF_ERROR(ReadAt(fd, path, buffer.data(), bytes, piece.offset + done));
    hasher.Add(buffer.data(), static_cast<size_t>(bytes));
    done += bytes;
  }
  if (hasher.Digest() != piece.hash) {
    return absl::DataLossError(absl::StrFormat(
        "%s is damaged between bytes %d and %d: hash %s, written was %s", path, piece.offset,
        piece.offset + piece.bytes, HashText(hasher.Digest()), HashText(piece.hash)));
  }
  return absl::OkStatus();
}

}  // namespace

std::string PiecesFileName(int rank, int world_size) {
  return absl::StrFormat("%s/pieces-%05d-of-%05d.json", kTrainingStateDirectory, rank, world_size);
}

std::string PiecesJson(const std::vector<FilePiece>& pieces) {
  json list = json::array();
  for (const FilePiece& piece : pieces) {
    list.push_back({piece.file, piece.offset, piece.bytes, HashText(piece.hash)});
  }
  return list.dump();
}

absl::Status VerifyCheckpoint(const std::string& directory, int part, int parts) {
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointMetadata metadata, ReadMetadata(directory));
  std::map<std::string, std::vector<FilePiece>> files;
  for (int rank = 0; rank < metadata.world_size; ++rank) {
    const std::string path = directory + "/" + PiecesFileName(rank, metadata.world_size);
    SWITCHYARD_ASSIGN_OR_RETURN(std::vector<FilePiece> pieces, ReadPieces(path));
    for (FilePiece& piece : pieces) files[piece.file].push_back(std::move(piece));
  }
  if (!files.contains(kTrainingStateFile)) {
    return absl::DataLossError(
        absl::StrFormat("%s: no rank lists %s", directory, kTrainingStateFile));
  }
  std::vector<char> buffer(kReadBytes);
  int number = 0;
  for (auto& [name, pieces] : files) {
    const std::string path = absl::StrCat(directory, "/", name);
    SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd fd, OpenToRead(path));
    SWITCHYARD_ASSIGN_OR_RETURN(const int64_t size, FileSize(fd.get(), path));
    std::sort(pieces.begin(), pieces.end(),
              [](const FilePiece& a, const FilePiece& b) { return a.offset < b.offset; });
    SWITCHYARD_RETURN_IF_ERROR(CheckTiling(path, pieces, size));
    for (const FilePiece& piece : pieces) {
      if (number++ % parts != part) continue;
      SWITCHYARD_RETURN_IF_ERROR(CheckHash(fd.get(), path, piece, buffer));
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard::trainer
