// The files of a Hugging Face model directory, looked at as far as their headers tell.
//
// Finds what would stop every rank at once (missing shards, truncated or damaged headers, no
// tokenizer). What needs the model's shape, tensor names and sizes, is the trainer's to prove.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::coordinator {

struct ModelFiles {
  int64_t bytes = 0;                  // of all *.safetensors that belong to the model
  std::vector<std::string> problems;  // each names the file and what is wrong
};

// `directory` exists.
ModelFiles InspectModelFiles(const std::string& directory);

}  // namespace switchyard::coordinator
