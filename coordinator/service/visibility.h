// What of the service's state a caller may hear of.
#pragma once

#include <functional>
#include <string>

#include "switchyard/v1/node.pb.h"

namespace switchyard::coordinator {

// Whether the caller may hear of a job, by its resource name. Any thread.
using MaySee = std::function<bool(const std::string& job)>;

// The node without what the caller may not see; that a slot is taken stays.
inline v1::Node VisibleNode(v1::Node node, const MaySee& may_see) {
  for (v1::Slot& slot : *node.mutable_slots()) {
    if (!slot.job().empty() && !may_see(slot.job())) slot.set_job("projects/-/jobs/-");
  }
  return node;
}

}  // namespace switchyard::coordinator
