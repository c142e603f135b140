// Which network interface and address the ranks of a job on several nodes use.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace switchyard::agent {

// The address that goes into the inventory, the first of: `address` itself; the one of `interface`;
// the one from which this machine reaches `coordinator` ("HOST:PORT"), since other nodes reach it
// too; the first that is not loopback; 127.0.0.1.
//
// InvalidArgument, naming the interfaces there are, when `interface` does not exist, is down or has
// no address.
absl::StatusOr<std::string> ChooseFabricAddress(const std::string& interface,
                                                const std::string& address,
                                                const std::string& coordinator);

}  // namespace switchyard::agent
