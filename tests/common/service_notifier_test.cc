#include "common/service_notifier.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>

namespace switchyard {
namespace {

// systemd's end, on an address without a file.
class Listener {
 public:
  explicit Listener(const std::string& name) : fd_(socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  }
  std::string Read() {
    char text[256];
    const ssize_t size = recv(fd_.get(), text, sizeof(text), MSG_DONTWAIT);
    return size < 0 ? "nothing" : std::string(text, static_cast<size_t>(size));
  }

 private:
  UniqueFd fd_;
};

TEST(ServiceNotifierTest, TellsSystemdInItsWordsAndKeepsTheSocketFromChildren) {
  const std::string name = "switchyard-test-" + std::to_string(getpid());
  Listener systemd(name);
  setenv("NOTIFY_SOCKET", ("@" + name).c_str(), 1);
  setenv("WATCHDOG_USEC", "30000000", 1);
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  ServiceNotifier notifier;
  EXPECT_EQ(notifier.alive_interval(), std::chrono::seconds(15));
  EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr);
  notifier.Ready();
  EXPECT_EQ(systemd.Read(), "READY=1");
  notifier.Status("2 of 4 slots in use");
  EXPECT_EQ(systemd.Read(), "STATUS=2 of 4 slots in use");
  notifier.Alive();
  EXPECT_EQ(systemd.Read(), "WATCHDOG=1");
  notifier.Stopping();
  EXPECT_EQ(systemd.Read(), "STOPPING=1");
}

TEST(ServiceNotifierTest, IsSilentWithoutSystemdAndForAnotherProcessesWatchdog) {
  ServiceNotifier nobody;
  nobody.Ready();
  EXPECT_EQ(nobody.alive_interval().count(), 0);
  setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
  setenv("WATCHDOG_USEC", "1000000", 1);
  ServiceNotifier gone;
  gone.Ready();
  EXPECT_EQ(gone.alive_interval().count(), 0);

  const std::string name = "switchyard-test-other-" + std::to_string(getpid());
  Listener systemd(name);
  setenv("NOTIFY_SOCKET", ("@" + name).c_str(), 1);
  setenv("WATCHDOG_USEC", "1000000", 1);
  setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(ServiceNotifier().alive_interval().count(), 0);
}

}  // namespace
}  // namespace switchyard
