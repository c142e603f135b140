// Assertions for programmer errors. Never for user input: that gets an absl::Status.
#pragma once

#include <cstdio>
#include <cstdlib>

// Aborts with file, line and `why` when `condition` is false.
#define SWITCHYARD_CHECK(condition, why)                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      std::fprintf(stderr, "%s:%d: check failed: %s (%s)\n", __FILE__, __LINE__, #condition, why); \
      std::abort();                                                                                \
    }                                                                                              \
  } while (false)
