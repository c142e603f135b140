// Prints what the launcher would create: kubernetes_objects FILE MINOR NODES SLOTS, a JSON array of
// the Jobs and the Service of one attempt, for a server of version 1.MINOR. The schemas that check
// them are Python's.
#include <cstdio>
#include <cstdlib>

#include "coordinator/kubernetes/config.h"
#include "coordinator/kubernetes/objects.h"

int main(int argc, char** argv) {
  using namespace switchyard::coordinator;  // NOLINT(google-build-using-namespace)
  if (argc != 5) {
    std::fprintf(stderr, "usage: kubernetes_objects FILE MINOR NODES SLOTS\n");
    return 64;
  }
  const auto config = ReadKubernetesConfig(argv[1]);
  if (!config.ok()) {
    std::fprintf(stderr, "%s\n", std::string(config.status().message()).c_str());
    return 1;
  }
  Allocation allocation;
  allocation.attempt = {"0123456789abcdef01234567", 3};
  allocation.job = "projects/default/jobs/tiny";
  allocation.nodes = std::atoi(argv[3]);
  allocation.slots_per_node = std::atoi(argv[4]);
  const std::string store = "fedcba9876543210";
  Json objects = Json::array();
  for (int i = 0; i < allocation.nodes; ++i) {
    objects.push_back(JobObject(*config, {1, std::atoi(argv[2])}, store, allocation, i));
  }
  Json first = objects[0];
  first["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000";
  objects.push_back(ServiceObject(store, allocation.attempt, first));
  std::puts(objects.dump(1).c_str());
  return 0;
}
