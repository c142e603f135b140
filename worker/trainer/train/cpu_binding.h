// Which CPUs a rank on a GPU runs on: those near its GPU, shared out among the GPUs that have the
// same ones near them. Pure, but for Bind.
#pragma once

#include <string>
#include <vector>

namespace switchyard::trainer {

// The share of GPU `index`. `near`: by GPU of the machine, in an order that all ranks agree on, the
// CPUs near it; `usable`: those that this process may use, ascending. Of every run of consecutive
// CPUs each sharer gets a part, so that hyperthreads of one core, which have equal places in two
// runs, stay together. Where there are fewer CPUs than sharers each gets all of them. Empty when
// nothing near is usable: then do not bind.
std::vector<int> ShareOfCpus(const std::vector<std::vector<int>>& near, size_t index,
                             const std::vector<int>& usable);

// From now on this thread and those that it starts run on `cpus`, and its memory comes from
// `numa_node` while that has some (-1: from wherever it runs). Empty when all of it was done, else
// what the kernel refused.
std::string Bind(const std::vector<int>& cpus, int numa_node);

}  // namespace switchyard::trainer
