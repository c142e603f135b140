// Tells systemd how this program stands (Type=notify, WatchdogSec=), over the datagram socket that
// NOTIFY_SOCKET names. Not started by systemd: every call does nothing.
//
// Knows nothing of what the program does; whoever calls Alive must know that work really goes on.
#pragma once

#include <chrono>
#include <string>

#include "common/unique_fd.h"

namespace switchyard {

class ServiceNotifier {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and takes them out of the environment, so
  // that no child speaks for this process. Before any thread starts.
  ServiceNotifier();

  // Ready to serve.
  void Ready() { Send("READY=1", /*wait=*/true); }
  // One line for `systemctl status`.
  void Status(const std::string& text) { Send("STATUS=" + text); }
  void Stopping() { Send("STOPPING=1", /*wait=*/true); }
  // Must come within every watchdog period, or systemd ends the program.
  void Alive() { Send("WATCHDOG=1"); }
  // Time between calls of Alive: half the period. Zero: nobody waits for them.
  std::chrono::milliseconds alive_interval() const { return alive_interval_; }

 private:
  // Lost when systemd does not read: at once, or with `wait` after two seconds.
  void Send(const std::string& text, bool wait = false);

  UniqueFd socket_;  // connected; invalid: nobody listens
  std::chrono::milliseconds alive_interval_{0};
};

}  // namespace switchyard
