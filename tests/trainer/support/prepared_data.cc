#include "tests/trainer/support/prepared_data.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "common/content_hash.h"

namespace switchyard::trainer {
namespace {

struct Row {
  uint32_t tokens = 0, targets = 0;
  uint64_t first_document = 0;
};

template <typename T>
void Append(std::string& bytes, const std::vector<T>& values) {
  bytes.resize((bytes.size() + 63) / 64 * 64);
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace

void WritePreparedData(const std::string& directory, int64_t sequence_length, int64_t vocab_size,
                       const std::vector<PreparedSequence>& sequences) {
  const int64_t words = (sequence_length + 63) / 64;
  std::vector<Row> rows;
  std::vector<uint32_t> documents;
  std::vector<uint64_t> targets(sequences.size() * words);
  std::vector<int32_t> tokens(sequences.size() * sequence_length);
  Row total;
  for (size_t i = 0; i < sequences.size(); ++i) {
    Row row;
    row.first_document = documents.size();
    for (const std::vector<int32_t>& document : sequences[i].documents) {
      documents.push_back(row.tokens);
      for (size_t t = 0; t < document.size(); ++t, ++row.tokens) {
        tokens[i * sequence_length + row.tokens] = document[t];
        if (t == 0 || static_cast<int64_t>(t) < sequences[i].first_target) continue;
        targets[i * words + row.tokens / 64] |= uint64_t{1} << (row.tokens % 64);
        ++row.targets;
      }
    }
    rows.push_back(row);
    total.tokens += row.tokens;
    total.targets += row.targets;
  }
  rows.push_back({0, 0, documents.size()});

  std::string bytes(64, '\0');
  std::memcpy(bytes.data(), "SWYTOK01", 8);
  const uint32_t header[2] = {1, static_cast<uint32_t>(sequence_length)};
  const uint64_t counts[2] = {sequences.size(), documents.size()};
  std::memcpy(bytes.data() + 8, header, sizeof(header));
  std::memcpy(bytes.data() + 16, counts, sizeof(counts));
  Append(bytes, rows);
  Append(bytes, documents);
  Append(bytes, targets);
  Append(bytes, tokens);

  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/tokens-00000.bin", std::ios::binary) << bytes;
  const std::string hash = HashText(ContentHash(bytes.data(), bytes.size()));
  const nlohmann::json index = {{"format", "switchyard-token-shards"},
                                {"version", 1},
                                {"sequence_length", sequence_length},
                                {"vocab_size", vocab_size},
                                {"max_token_id", *std::max_element(tokens.begin(), tokens.end())},
                                {"sequences", sequences.size()},
                                {"documents", documents.size()},
                                {"tokens", total.tokens},
                                {"targets", total.targets},
                                {"fingerprint", hash + hash},
                                {"shards",
                                 {{{"file", "tokens-00000.bin"},
                                   {"sequences", sequences.size()},
                                   {"tokens", total.tokens},
                                   {"targets", total.targets},
                                   {"bytes", bytes.size()},
                                   {"xxh3", hash}}}},
                                {"report", nlohmann::json::object()}};
  std::ofstream(directory + "/index.json") << index.dump(2);
}

std::vector<PreparedSequence> CountingSequences(int64_t count, int64_t sequence_length,
                                                int64_t vocab_size, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<PreparedSequence> sequences(count);
  for (PreparedSequence& sequence : sequences) {
    int64_t room = sequence_length - static_cast<int64_t>(random() % 4);
    while (room > 1) {
      const int64_t length = std::min<int64_t>(room, 4 + random() % 12);
      const auto start = static_cast<int64_t>(random() % static_cast<uint64_t>(vocab_size));
      const int64_t step = 1 + random() % 2;
      std::vector<int32_t> document;
      for (int64_t i = 0; i < length; ++i)
        document.push_back(static_cast<int32_t>((start + i * step) % vocab_size));
      sequence.documents.push_back(document);
      room -= length;
    }
  }
  return sequences;
}

}  // namespace switchyard::trainer
