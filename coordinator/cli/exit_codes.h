// What the program's exit status says; documented in docs/operations.md.
#pragma once

#include "absl/status/status.h"
#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

inline constexpr int kExitOk = 0;
inline constexpr int kExitJobFailed = 1;     // the watched job FAILED
inline constexpr int kExitDoctorFailed = 1;  // doctor found something that does not work
inline constexpr int kExitUsage = 2;      // the command line, the spec or the request was refused
inline constexpr int kExitCancelled = 3;  // the watched job was cancelled or deleted
inline constexpr int kExitUnavailable = 69;  // no coordinator answered in time
inline constexpr int kExitInternal = 70;     // an error of the service or of this program

inline int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnavailable;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDataLoss:
      return kExitInternal;
    default:
      return kExitUsage;
  }
}

// Of a job that ended.
inline int ExitCodeOf(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_SUCCEEDED:
      return kExitOk;
    case v1::JOB_STATE_CANCELLED:
      return kExitCancelled;
    default:
      return kExitJobFailed;
  }
}

}  // namespace switchyard::coordinator
