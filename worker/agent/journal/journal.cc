#include "worker/agent/journal/journal.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/agent/core/names.h"

namespace switchyard::agent {
namespace {

namespace fs = std::filesystem;
constexpr char kStoreFile[] = "store-id";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

absl::Status ReplaceFile(const std::string& path, const std::string& bytes) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  SWITCHYARD_RETURN_IF_ERROR(WriteFileDurably(temporary, bytes));
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return FileError(errno, "rename to", path);
  return SyncDirectory(fs::path(path).parent_path().string());
}

absl::StatusOr<Journal> Journal::Open(const std::string& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return absl::InternalError(absl::StrCat("cannot create ", dir, ": ", error.message()));
  return Journal(dir);
}

std::string Journal::Path(const AttemptKey& key) const {
  return absl::StrCat(dir_, "/", key.job_uid, ".", key.epoch, ".json");
}

absl::Status Journal::Write(const v1::AttemptStatus& result) {
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  if (const auto status = google::protobuf::util::MessageToJsonString(result, &json, options);
      !status.ok()) {
    return absl::InternalError(absl::StrCat("cannot write a result as JSON: ", status.ToString()));
  }
  return ReplaceFile(Path({result.job_uid(), result.epoch()}), json);
}

void Journal::Remove(const AttemptKey& key) {
  if (unlink(Path(key).c_str()) != 0) return;
  if (const auto status = SyncDirectory(dir_); !status.ok()) {
    log::Warning("journal.unsynced", {{"error", std::string(status.message())}});
  }
}

std::vector<v1::AttemptStatus> Journal::Load() const {
  std::vector<v1::AttemptStatus> results;
  for (const auto& entry : fs::directory_iterator(dir_)) {
    const std::string path = entry.path().string();
    if (!absl::EndsWith(path, ".json")) continue;
    v1::AttemptStatus result;
    const auto parsed = google::protobuf::util::JsonStringToMessage(ReadFile(path), &result);
    if (!parsed.ok() || !IsSafeUid(result.job_uid()) ||
        Path({result.job_uid(), result.epoch()}) != path) {
      log::Error("journal.corrupt", {{"path", path}, {"kept_as", path + ".corrupt"}});
      std::error_code ignored;
      fs::rename(path, path + ".corrupt", ignored);
      continue;
    }
    results.push_back(std::move(result));
  }
  return results;
}

std::string Journal::StoreId() const { return ReadFile(absl::StrCat(dir_, "/", kStoreFile)); }

absl::Status Journal::SetStoreId(const std::string& store_id) {
  return ReplaceFile(absl::StrCat(dir_, "/", kStoreFile), store_id);
}

}  // namespace switchyard::agent
