// The small files beside the weights of a model directory: configuration, tokenizer, chat template.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::trainer {

struct SidecarFile {
  std::string name;  // within the directory
  std::string contents;
};

// Every .json, .jinja, .txt, .model and .tiktoken file at the top of `directory` and every .jinja
// file in additional_chat_templates, by name; weight indices are left out. NotFound when there is
// no config.json.
absl::StatusOr<std::vector<SidecarFile>> ReadSidecarFiles(const std::string& directory);

}  // namespace switchyard::trainer
