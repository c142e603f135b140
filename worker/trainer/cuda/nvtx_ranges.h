// The ranges of a step (at::RecordScope::USER_SCOPE: layers, phases, modules) as NVTX ranges, which
// profilers that attach to the process show (Nsight Systems). Where none does, a range costs two
// calls through a pointer.
#pragma once

namespace switchyard::trainer::cuda {

// From the first call on.
void ShowRangesToProfilers();

}  // namespace switchyard::trainer::cuda
