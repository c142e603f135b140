// What at::mm and its kind may take of the GPU. Knows nothing of models or streams.
#pragma once

namespace switchyard::trainer::cuda {

// Multiprocessors of the current device.
int Multiprocessors();
// Products by cuBLAS that this thread enqueues from here on are chosen for `limit` multiprocessors;
// 0: all. Throws c10::Error.
void LimitDenseGemms(int limit);

}  // namespace switchyard::trainer::cuda
