// Stands in for switchyard-trainer: does what its configuration tells each rank to.
//
//   {"script": {"0": ["ready", "steps 3 10", "exit 0 OK"], "1": [...]}, "job_uid": ..., "epoch":
//   ...}
//
// Commands: ready | rendezvous ID | steps N MS | eval LOSS | shard STEP STAGE FINAL | log TEXT |
// log-not-utf8 | log-bytes N | env NAME | fds | garbage | long-line | wait-line | stall | exit CODE
// [REASON] | signal N | ignore-term | grandchild | segment NAME | survive-agent (first: no death
// signal, and end of file is ignored)
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace {

using Json = nlohmann::json;

void Say(const Json& line) {
  const std::string text = line.dump() + "\n";
  if (write(3, text.data(), text.size()) < 0) std::_Exit(74);
}

// A line from fd 4, or nothing at its end.
bool ReadLine(std::string* line) {
  line->clear();
  for (char c = 0; read(4, &c, 1) == 1;) {
    if (c == '\n') return true;
    line->push_back(c);
  }
  return false;
}

void Log(const std::string& text) {
  std::fprintf(stdout, "%s\n", text.c_str());
  std::fflush(stdout);
}

void LogOpenDescriptors() {
  DIR* dir = opendir("/proc/self/fd");
  std::string list;
  while (const dirent* entry = readdir(dir)) {
    if (entry->d_name[0] != '.' && std::atoi(entry->d_name) != dirfd(dir))
      list += std::string(" ") + entry->d_name;
  }
  closedir(dir);
  Log("fds" + list);
}

}  // namespace

int main(int argc, char** argv) {
  std::string config_path, rank;
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::string(argv[i]) == "--config") config_path = argv[i + 1];
    if (std::string(argv[i]) == "--rank") rank = argv[i + 1];
  }
  std::ifstream file(config_path);
  const Json config = Json::parse(file);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int64_t step = 0;
  bool survive = false;
  for (const auto& item : config["script"][rank]) {
    const auto command = item.get<std::string>();
    std::istringstream words(command);
    std::string verb, text;
    words >> verb;
    std::getline(words >> std::ws, text);
    std::istringstream arguments(text);
    if (verb == "ready") {
      Say({{"ready",
            {{"rank", std::stoi(rank)}, {"arena_bytes", 1 << 20}, {"added_later", true}}}});
    } else if (verb == "rendezvous") {
      Say({{"rendezvous", {{"id", text}}}});
    } else if (verb == "steps") {
      int count = 0, pause_ms = 0;
      arguments >> count >> pause_ms;
      for (int i = 0; i < count; ++i) {
        Say({{"step",
              {{"step", ++step},
               {"loss", "NaN"},
               {"tokens", 128},
               {"peak_memory_bytes", 1 << 20}}}});
        usleep(static_cast<useconds_t>(pause_ms) * 1000);
      }
    } else if (verb == "eval") {
      Say({{"eval", {{"step", step}, {"loss", std::stod(text)}}}});
    } else if (verb == "shard") {
      std::string stage, final_path;
      arguments >> step >> stage >> final_path;
      Say({{"checkpoint_shard",
            {{"rank", std::stoi(rank)},
             {"step", step},
             {"stage_path", stage},
             {"final_path", final_path}}}});
    } else if (verb == "log") {
      Log(text);
    } else if (verb == "log-not-utf8") {
      Log("byte \xFF");
    } else if (verb == "log-bytes") {
      for (int i = 0, n = std::stoi(text); i < n; i += 100)
        Log(std::string(99, static_cast<char>('a' + i / 100 % 26)));
    } else if (verb == "env") {
      const char* value = std::getenv(text.c_str());
      Log(text + "=" + (value == nullptr ? "(unset)" : value));
    } else if (verb == "fds") {
      LogOpenDescriptors();
    } else if (verb == "garbage") {
      const std::string garbage = "this is not JSON\n{\"step\":\n";
      if (write(3, garbage.data(), garbage.size()) < 0) return 74;
    } else if (verb == "long-line") {
      const std::string line(3 << 20, 'x');
      for (size_t done = 0; done < line.size();)
        done += static_cast<size_t>(write(3, line.data() + done, line.size() - done));
      if (write(3, "\n", 1) < 0) return 74;
    } else if (verb == "wait-line") {
      std::string line;
      if (!ReadLine(&line)) return 75;
      Log("got " + line);
    } else if (verb == "stall") {
      std::string line;
      while (ReadLine(&line)) Log("got " + line);
      if (!survive) return 75;  // the agent is gone
      for (;;) pause();
    } else if (verb == "exit") {
      int code = 0;
      std::string reason;
      arguments >> code >> reason;
      if (!reason.empty())
        Say({{"exit", {{"code", reason}, {"message", "told to"}, {"step", step}}}});
      return code;
    } else if (verb == "signal") {
      std::signal(std::stoi(text), SIG_DFL);  // a sanitizer's handler would make it an exit code
      raise(std::stoi(text));
    } else if (verb == "ignore-term") {
      std::signal(SIGTERM, SIG_IGN);
    } else if (verb == "survive-agent") {
      survive = true;
      prctl(PR_SET_PDEATHSIG, 0);
    } else if (verb == "grandchild") {
      if (fork() == 0) {
        std::signal(SIGTERM, SIG_IGN);
        for (;;) pause();
      }
    } else if (verb == "segment") {
      const std::string name = "/switchyard-" + config["job_uid"].get<std::string>() + "-" +
                               std::to_string(config["epoch"].get<int>()) + "-" + text;
      shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
    } else {
      std::cerr << "unknown command " << command << "\n";
      return 64;
    }
  }
  return 0;
}
