// Checkpoints of a job: commit when every rank's part is durable, publish, keep the newest, remove
// the rest.
//
// Level-triggered, like the launcher.
#pragma once

#include <optional>
#include <string>

#include "coordinator/reconcile/attempt_facts.h"
#include "coordinator/reconcile/core_context.h"

namespace switchyard::coordinator {

// Commits every checkpoint of which all ranks of the current attempt reported their part.
void CommitCheckpoints(CoreContext& core, const std::string& uid, const AttemptFacts& facts);
// Sends what stored checkpoints still need: publishing, removal. Retention.
void DriveCheckpoints(CoreContext& core, const std::string& uid);
// A held-out loss was measured, before or after the checkpoint of its step is committed.
void OnEvaluated(CoreContext& core, const std::string& uid, const trainer::v1::Eval& eval);
// An agent's answer; ignored unless that checkpoint waits for it.
void OnCheckpointPublished(CoreContext& core, const agent::v1::CheckpointPublished& published);
// Never resumed from again; its directory is removed.
void MarkCorrupt(CoreContext& core, const std::string& uid, const std::string& path);

// Newest checkpoint to resume from; null for none.
const store::v1::CheckpointRecord* NewestUsable(const JobBook& book, const std::string& uid);
// Committed but not yet in place.
bool HasUnpublished(const JobBook& book, const std::string& uid);
// Directories that an agent has yet to be told to remove.
bool HasPendingRemoval(const JobBook& book, const std::string& uid);
// The result, when `epoch` committed it and it was not found corrupt.
const store::v1::CheckpointRecord* FinalOf(const JobBook& book, const std::string& uid,
                                           int64_t epoch);

}  // namespace switchyard::coordinator
