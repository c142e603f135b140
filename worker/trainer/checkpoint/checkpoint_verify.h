// The list of pieces that each rank leaves in a checkpoint, and the check of a checkpoint against
// it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/trainer/checkpoint/piece_writer.h"

namespace switchyard::trainer {

// Name within the checkpoint: "training_state/pieces-00000-of-00004.json".
std::string PiecesFileName(int rank, int world_size);
std::string PiecesJson(const std::vector<FilePiece>& pieces);

// Checks that the pieces of all ranks tile every file exactly and that every file has its size, and
// the hashes of every `parts`-th piece beginning with `part`: each rank checks a part, together
// they check every byte. DataLoss names file and position; NotFound when a rank's list or a file is
// missing.
absl::Status VerifyCheckpoint(const std::string& directory, int part = 0, int parts = 1);

}  // namespace switchyard::trainer
