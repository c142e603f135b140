#include "worker/agent/files/probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/content_hash.h"
#include "common/unique_fd.h"

namespace switchyard::agent {
namespace {

namespace fs = std::filesystem;
constexpr char kNonceFile[] = ".switchyard-nonce";

class Prober {
 public:
  Prober(const std::string& node, v1::ProbeResult& result) : node_(node), result_(result) {}

  void Problem(const std::string& sentence) { result_.add_problems(sentence); }

  bool Readable(const std::string& what, const std::string& path) {
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat stat {};
    if (!fd.valid() || fstat(fd.get(), &stat) != 0) {
      Problem(absl::StrCat(what, " ", path, " cannot be read: ", std::strerror(errno)));
      return false;
    }
    if (!S_ISREG(stat.st_mode)) {
      Problem(absl::StrCat(what, " ", path, " is not a file"));
      return false;
    }
    return true;
  }

  void Model(const std::string& dir) {
    std::error_code error;
    if (!fs::is_directory(dir, error)) {
      Problem(absl::StrCat("model ", dir,
                           fs::exists(dir, error) ? " is not a directory" : " does not exist",
                           "; give the directory that holds config.json and *.safetensors"));
      return;
    }
    std::vector<fs::path> files;
    for (auto it = fs::directory_iterator(dir, error); !error && it != fs::directory_iterator();
         it.increment(error)) {
      if (it->is_regular_file(error)) files.push_back(it->path());
    }
    if (error) return Problem(absl::StrCat("model ", dir, " cannot be listed: ", error.message()));
    std::sort(files.begin(), files.end());
    if (!Readable("model file", absl::StrCat(dir, "/config.json"))) return;
    ContentHasher fingerprint;
    std::ifstream config(absl::StrCat(dir, "/config.json"));
    std::ostringstream text;
    text << config.rdbuf();
    const auto add = [&](const std::string& item) {
      fingerprint.Add(item.c_str(), item.size() + 1);
    };
    add(text.str());
    int weights = 0;
    for (const auto& file : files) {
      if (!Readable("model file", file.string())) return;
      weights += absl::EndsWith(file.string(), ".safetensors");
      add(file.filename().string());
      add(absl::StrCat(fs::file_size(file, error)));
    }
    if (weights == 0) Problem(absl::StrCat("model ", dir, " holds no *.safetensors file"));
    result_.set_model_fingerprint(HashText(fingerprint.Digest()));
  }

  // True when files can be made there.
  bool Output(const std::string& dir) {
    std::error_code error;
    fs::create_directories(dir, error);
    if (error) {
      Problem(absl::StrCat("output ", dir, " cannot be created: ", error.message()));
      return false;
    }
    const std::string trial = absl::StrCat(dir, "/.switchyard-write-", node_, "-", getpid());
    const UniqueFd fd(open(trial.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640));
    if (!fd.valid() || write(fd.get(), "x", 1) != 1) {
      Problem(absl::StrCat("output ", dir, " cannot be written: ", std::strerror(errno)));
      unlink(trial.c_str());
      return false;
    }
    unlink(trial.c_str());
    struct statvfs space {};
    if (statvfs(dir.c_str(), &space) == 0) {
      result_.set_disk_free_bytes(static_cast<int64_t>(space.f_bavail) *
                                  static_cast<int64_t>(space.f_frsize));
    }
    return true;
  }

  void WriteNonce(const std::string& dir, const std::string& nonce) {
    const std::string path = absl::StrCat(dir, "/", kNonceFile);
    const std::string temporary = absl::StrCat(path, ".", getpid());
    std::ofstream(temporary) << nonce << std::flush;
    if (std::rename(temporary.c_str(), path.c_str()) != 0) {
      Problem(absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
    }
  }

  void ReadNonce(const std::string& dir, const std::string& nonce, std::chrono::milliseconds wait) {
    const auto until = std::chrono::steady_clock::now() + wait;
    std::string seen;
    for (;;) {
      std::ifstream file(absl::StrCat(dir, "/", kNonceFile));
      seen.assign(std::istreambuf_iterator<char>(file), {});
      if (seen == nonce) return;
      if (std::chrono::steady_clock::now() >= until) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    Problem(absl::StrCat("output ", dir, " is not the same directory as on the other nodes (",
                         seen.empty() ? "their nonce file is missing" : "it holds another nonce",
                         "); put it on a file system that every node mounts at this path"));
  }

 private:
  const std::string& node_;
  v1::ProbeResult& result_;
};

}  // namespace

v1::ProbeResult ProbePathsOnDisk(const v1::ProbePaths& request, const std::string& node,
                                 std::chrono::milliseconds nonce_wait) {
  v1::ProbeResult result;
  result.set_probe_id(request.probe_id());
  Prober prober(node, result);
  prober.Model(request.model());
  for (const auto& data : request.data()) prober.Readable("data", data);
  if (prober.Output(request.output()) && !request.nonce().empty()) {
    if (request.write_nonce()) {
      prober.WriteNonce(request.output(), request.nonce());
    } else {
      prober.ReadNonce(request.output(), request.nonce(), nonce_wait);
    }
  }
  return result;
}

}  // namespace switchyard::agent
