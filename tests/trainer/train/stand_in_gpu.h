// A GPU that holds no data: runs on it go as far as loading a model. It is the GpuBackend of a
// test's program.
#pragma once

namespace switchyard::trainer {

struct StandInGpu {
  // Groups of ranks joined so far, and groups left, of them with an exception in flight.
  int joined = 0, left = 0, left_failing = 0;
};

StandInGpu& TheStandInGpu();

}  // namespace switchyard::trainer
