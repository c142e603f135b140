// switchyard-agent: one a node.
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "common/log.h"
#include "common/rpc/credentials.h"
#include "worker/agent/doctor/doctor_command.h"
#include "worker/agent/host/agent_host.h"

namespace {

// switchyard-agent die-with-parent PID PROGRAM ARGUMENTS...: becomes a program that cannot ask for
// this itself.
int DieWithParent(char** argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != std::atoi(argv[2])) return 75;  // it died before we asked
  execvp(argv[3], argv + 3);
  std::fprintf(stderr, "cannot start %s: %s\n", argv[3], std::strerror(errno));
  return 127;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace switchyard::agent;  // NOLINT: a program's main
  if (argc >= 4 && std::string(argv[1]) == "die-with-parent") return DieWithParent(argv);

  if (argc >= 2 && std::string(argv[1]) == "doctor") return DoctorCommand(argc - 1, argv + 1);

  AgentOptions options;
  ParseOutcome outcome;
  if (!ParseOptions(argc, argv, &options, &outcome)) return outcome.exit_code;

  switchyard::rpc::AllowOnlyTls13();
  switchyard::rpc::AdoptGrpcLog();
  switchyard::log::SetProcessFields({{"program", "agent"}, {"node", options.node}});
  std::string problem;
  if (!switchyard::log::ConfigureFromEnvironment(&problem)) {
    std::fprintf(stderr, "switchyard-agent: %s\n", problem.c_str());
    return 2;
  }

  // Before any thread, so that all of them leave these signals to the one that waits for them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  switchyard::ServiceNotifier systemd;

  auto host = AgentHost::Create(options);
  if (!host.ok()) {
    std::fprintf(stderr, "switchyard-agent: %s\n", std::string(host.status().message()).c_str());
    return 1;
  }
  std::thread([signals, agent = host->get(), &systemd] {
    int signal = 0;
    for (;;) {
      if (sigwait(&signals, &signal) != 0) continue;
      switchyard::log::Info("agent.stopping", {{"signal", signal}});
      systemd.Stopping();
      agent->RequestShutdown();
    }
  }).detach();
  (*host)->Run(systemd);
  if ((*host)->left()) {
    std::error_code ignored;
    std::filesystem::remove_all(options.work_dir, ignored);
  }
  switchyard::log::Info("agent.stopped");
  std::_Exit(0);  // the signal thread still uses the host
}
