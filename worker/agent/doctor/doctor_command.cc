#include "worker/agent/doctor/doctor_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "worker/agent/doctor/machine_checks.h"

namespace switchyard::agent {

int DoctorCommand(int argc, char** argv) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  std::string trainer = (self.parent_path() / "switchyard-trainer").string();
  std::string work_dir = "/var/lib/switchyard";
  int slots = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  CLI::App app("Looks at this machine and prints what it finds as JSON.",
               "switchyard-agent doctor");
  app.add_option("--trainer", trainer, "Path of switchyard-trainer")->capture_default_str();
  app.add_option("--work-dir", work_dir, "The agent's directory")->capture_default_str();
  app.add_option("--slots", slots, "Ranks that may run here at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& parse_error) {
    return app.exit(parse_error) == 0 ? 0 : 2;
  }
  std::vector<HealthCheck> checks = {CheckTrainer(trainer), CheckDisk(work_dir),
                                     CheckSharedMemory("/dev/shm", slots)};
  for (auto&& found : {CheckLimits(), CheckGpus(InspectGpus())})
    checks.insert(checks.end(), found.begin(), found.end());
  checks.push_back(CheckGpuCpus("/sys"));
  checks.push_back(CheckClock());
  std::fputs(HealthJson(checks).c_str(), stdout);
  return 0;
}

}  // namespace switchyard::agent
