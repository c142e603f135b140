// Parsers that read foreign bytes, each as a function that takes any bytes and must come back.
//
// Run by libFuzzer (fuzz_libfuzzer.cc, clang) to find inputs that crash, hang or leak, and over the
// committed corpora by fuzz_corpus_test (any compiler). A target aborts when what the parser
// accepted contradicts what it promises.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace switchyard::fuzz {

// A job spec, YAML or JSON, and then the rules for its meaning.
void JobSpec(absl::string_view bytes);
// The header of a safetensors file, as the trainer reads it and as the coordinator looks at it.
void Safetensors(absl::string_view bytes);
// A token shard. The first 16 bytes say how many tokens and targets the index claims.
void TokenShard(absl::string_view bytes);
// Lines of a trainer, in chunks, and of data preparation. The first byte says how long chunks are.
void TrainerLines(absl::string_view bytes);
// A bearer token's header, the file of tokens, certificates, paging tokens.
void Tokens(absl::string_view bytes);

struct Target {
  const char* name;  // and of its directory in corpus/
  void (*run)(absl::string_view bytes);
};
inline constexpr Target kTargets[] = {{"job_spec", JobSpec},
                                      {"safetensors", Safetensors},
                                      {"token_shard", TokenShard},
                                      {"trainer_lines", TrainerLines},
                                      {"tokens", Tokens}};

}  // namespace switchyard::fuzz
