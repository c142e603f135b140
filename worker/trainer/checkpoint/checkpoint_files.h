// The weight files of a Hugging Face model directory: which tensor lies where.
//
// Reads headers only. Knows nothing of parameters or of this rank.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/trainer/checkpoint/safetensors.h"

namespace switchyard::trainer {

inline constexpr char kSingleWeightFile[] = "model.safetensors";
inline constexpr char kWeightIndexFile[] = "model.safetensors.index.json";

class CheckpointFiles {
 public:
  // `directory` holds model.safetensors, or model.safetensors.index.json and the files it names (as
  // in Transformers, the first is taken when both are there). An error names every file that is
  // missing, and every tensor that the index and the files disagree on.
  static absl::StatusOr<CheckpointFiles> Open(const std::string& directory);

  const std::string& directory() const { return directory_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  // Names within the directory, as files().
  const std::vector<std::string>& file_names() const { return file_names_; }
  // Text of the index; empty for a single file.
  const std::string& index_text() const { return index_text_; }

  // Tensors of all files, in the order of files and bytes.
  int num_tensors() const { return static_cast<int>(tensors_.size()); }
  const SafetensorsTensor& tensor(int i) const {
    return files_[tensors_[i].file].header().tensors[tensors_[i].index];
  }
  // Index of its file.
  int file_of(int i) const { return tensors_[i].file; }
  // -1 when there is none.
  int Find(absl::string_view name) const;

 private:
  struct Location {
    int file;
    int index;
  };

  absl::Status AddFile(const std::string& name);

  std::string directory_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::string> file_names_;
  std::string index_text_;
  std::vector<Location> tensors_;
  absl::flat_hash_map<std::string, int> by_name_;
};

}  // namespace switchyard::trainer
