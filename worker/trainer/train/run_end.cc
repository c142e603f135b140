#include "worker/trainer/train/run_end.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>

#include "worker/trainer/comm/communicator.h"

namespace switchyard::trainer {

RunEnd EndOfCurrentException() {
  try {
    throw;
  } catch (const TrainerError& error) {
    return {error.code(), error.what()};
  } catch (const PeerLost& error) {
    return {ExitCode::kPeerLost, error.what()};
  } catch (const c10::OutOfMemoryError& error) {
    return {ExitCode::kOutOfMemory, error.what_without_backtrace()};
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    // The CPU allocator has no error type of its own.
    const bool memory = what.find("can't allocate memory") != std::string::npos;
    return {memory ? ExitCode::kOutOfMemory : ExitCode::kInternal, what};
  } catch (const std::bad_alloc&) {
    return {ExitCode::kOutOfMemory,
            "the host's memory is exhausted; choose a smaller micro-batch or more ranks"};
  } catch (const std::exception& error) {
    return {ExitCode::kInternal, error.what()};
  } catch (...) {
    return {ExitCode::kInternal, "an exception of unknown type"};
  }
}

}  // namespace switchyard::trainer
