// A step's ranges reach a profiler that NVTX has loaded. Needs no GPU.
#include "worker/trainer/cuda/nvtx_ranges.h"

#include <ATen/record_function.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "worker/trainer/model/phase_timer.h"

namespace switchyard::trainer::cuda {
namespace {

TEST(NvtxRangesTest, AProfilerSeesPhasesAndScopesNested) {
  ASSERT_EQ(setenv("NVTX_INJECTION64_PATH", SWITCHYARD_NVTX_TOOL, 1), 0);
  ShowRangesToProfilers();
  ShowRangesToProfilers();  // changes nothing
  {
    const PhaseScope phase(nullptr, StepPhase::kBackward);
    RECORD_USER_SCOPE("layer backward");
    const PhaseScope inner(nullptr, StepPhase::kCombine);
  }
  void* tool = dlopen(SWITCHYARD_NVTX_TOOL, RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(tool, nullptr) << "NVTX did not load the profiler";
  const auto ranges = reinterpret_cast<const char* (*)()>(dlsym(tool, "NvtxToolRanges"));
  ASSERT_NE(ranges, nullptr);
  EXPECT_EQ(std::string(ranges()),
            "begin backward\nbegin layer backward\nbegin combine\nend\nend\nend\n");
}

}  // namespace
}  // namespace switchyard::trainer::cuda
