// Stands for switchyard-coordinator or switchyard-agent, by the name it is started under: the
// coordinator serves one READY node, the agent only lives. Ends on SIGTERM, or by itself after a
// minute.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include "tests/coordinator/cli/fake_coordinator.h"

namespace {

std::string Flag(int argc, char** argv, const char* name) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const timespec minute{60, 0};
  if (std::strstr(argv[0], "switchyard-agent") != nullptr) {
    std::printf("agent with %s slots\n", Flag(argc, argv, "--cpu-slots").c_str());
    std::fflush(stdout);
    return sigtimedwait(&signals, nullptr, &minute) > 0 ? 0 : 1;
  }
  const std::string listen = Flag(argc, argv, "--listen");
  switchyard::coordinator::FakeCoordinator coordinator;
  coordinator.nodes.node.set_name("nodes/local");
  coordinator.nodes.node.set_state(switchyard::v1::NODE_STATE_READY);
  coordinator.nodes.beating = true;
  coordinator.Stop();
  coordinator.Start(std::stoi(listen.substr(listen.rfind(':') + 1)));
  if (!coordinator.running()) {
    std::fprintf(stderr, "the port of %s is taken\n", listen.c_str());
    return 1;
  }
  return sigtimedwait(&signals, nullptr, &minute) > 0 ? 0 : 1;
}
