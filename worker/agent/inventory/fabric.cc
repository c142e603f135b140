#include "worker/agent/inventory/fabric.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/unique_fd.h"

namespace switchyard::agent {
namespace {

struct Interface {
  std::string name;
  std::string address;  // empty: none that others could use
  bool up = false;
  bool loopback = false;
};

// Address as text; empty for link-local IPv6, which is of no use without a scope, and other kinds.
std::string AddressText(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address == nullptr) return "";
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text,
              sizeof(text));
  } else if (address->sa_family == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    if (!IN6_IS_ADDR_LINKLOCAL(&ip)) inet_ntop(AF_INET6, &ip, text, sizeof(text));
  }
  return text;
}

// Each interface once, with an IPv4 address where it has one.
std::vector<Interface> Interfaces() {
  std::vector<Interface> interfaces;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return interfaces;
  for (const ifaddrs* item = list; item != nullptr; item = item->ifa_next) {
    Interface* known = nullptr;
    for (Interface& interface : interfaces) {
      if (interface.name == item->ifa_name) known = &interface;
    }
    if (known == nullptr)
      known = &interfaces.emplace_back(Interface{item->ifa_name, "", false, false});
    known->up = (item->ifa_flags & IFF_UP) != 0;
    known->loopback = (item->ifa_flags & IFF_LOOPBACK) != 0;
    const std::string text = AddressText(item->ifa_addr);
    const bool better = known->address.empty() || absl::StrContains(known->address, ":");
    if (!text.empty() && better) known->address = text;
  }
  freeifaddrs(list);
  return interfaces;
}

// This machine's end of a route to `target`; nothing is sent. Empty when there is none, or when it
// is loopback.
std::string AddressTowards(const std::string& target) {
  const size_t colon = target.rfind(':');
  if (colon == std::string::npos) return "";
  std::string host = target.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), target.c_str() + colon + 1, &hints, &found) != 0) return "";
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(found, freeaddrinfo);
  for (const addrinfo* item = found; item != nullptr; item = item->ai_next) {
    const UniqueFd fd(socket(item->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage own{};
    socklen_t size = sizeof(own);
    if (!fd.valid() || connect(fd.get(), item->ai_addr, item->ai_addrlen) != 0 ||
        getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0) {
      continue;
    }
    std::string text = AddressText(reinterpret_cast<sockaddr*>(&own));
    if (!text.empty() && text != "::1" && !absl::StartsWith(text, "127.")) return text;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::string> ChooseFabricAddress(const std::string& interface,
                                                const std::string& address,
                                                const std::string& coordinator) {
  const std::vector<Interface> interfaces = Interfaces();
  if (!interface.empty()) {
    std::vector<std::string> usable;
    for (const Interface& item : interfaces) {
      if (!item.up || item.address.empty()) continue;
      if (item.name == interface) return address.empty() ? item.address : address;
      usable.push_back(absl::StrCat(item.name, " (", item.address, ")"));
    }
    return absl::InvalidArgumentError(
        absl::StrCat("--fabric-interface is \"", interface,
                     "\", which does not exist, is down or has no address; there are: ",
                     absl::StrJoin(usable, ", ")));
  }
  if (!address.empty()) return address;
  if (std::string towards = AddressTowards(coordinator); !towards.empty()) return towards;
  for (const Interface& item : interfaces) {
    if (item.up && !item.loopback && !item.address.empty()) return item.address;
  }
  return "127.0.0.1";
}

}  // namespace switchyard::agent
