// Binds a rank to the CPUs and the memory near its GPU.
#pragma once

namespace switchyard::trainer {

// `index` of `count` visible GPUs. Call before threads are started that should stay near. Logs what
// it did; a machine that does not say what is near, or forbids the binding, is no error.
void BindToCpusNear(int index, int count);

}  // namespace switchyard::trainer
