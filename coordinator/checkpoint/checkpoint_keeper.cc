#include "coordinator/checkpoint/checkpoint_keeper.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/job/names.h"
#include "coordinator/job/proto_time.h"

namespace switchyard::coordinator {
namespace {

using agent::v1::ConnectResponse;
using store::v1::CheckpointRecord;
using store::v1::JobRecord;
using trainer::v1::CheckpointShard;

constexpr int kPublishTries = 3;
constexpr int kDefaultKeep = 2;
constexpr size_t kKeptEvaluations = 8;  // parts of a checkpoint may be late by so many

// Committed, in place or not, and not found corrupt.
bool IsUsable(const v1::Checkpoint& checkpoint) {
  return checkpoint.state() == v1::CHECKPOINT_STATE_COMMITTED ||
         checkpoint.state() == v1::CHECKPOINT_STATE_AVAILABLE;
}

// A node that sees the job's output: one of its newest attempt, rank 0's first, else any.
std::string NodeFor(const CoreContext& core, const JobRecord& record) {
  for (const std::string& node : NodesOf(record)) {
    const NodeEntry* entry = core.nodes.Find(node);
    if (entry != nullptr && entry->connected()) return node;
  }
  for (const auto& [name, entry] : core.nodes.nodes()) {
    if (entry.connected()) return name;
  }
  return "";
}

void Commit(CoreContext& core, const JobRecord& job, const CheckpointShard& shard, int64_t bytes) {
  CheckpointRecord record;
  record.set_job_uid(job.job().uid());
  record.set_stage_path(shard.stage_path());
  v1::Checkpoint& checkpoint = *record.mutable_checkpoint();
  checkpoint.set_name(MakeCheckpointName(job.job().name(), shard.step(), shard.final()));
  checkpoint.set_step(shard.step());
  checkpoint.set_epoch(job.job().epoch());
  checkpoint.set_path(shard.final_path());
  checkpoint.set_bytes(bytes);
  checkpoint.set_final(shard.final());
  checkpoint.set_state(v1::CHECKPOINT_STATE_COMMITTED);
  *checkpoint.mutable_create_time() = ToTimestamp(core.clock.Wall());
  const auto& losses = job.launch().eval_losses();
  if (const auto loss = losses.find(shard.step()); loss != losses.end())
    checkpoint.set_eval_loss(loss->second);
  core.book.PutCheckpoint(record);
  core.book.AddEvent(
      job.job().name(), job.job().epoch(), "CheckpointCommitted", v1::EVENT_SEVERITY_INFO,
      absl::StrFormat("step %d is durable on all ranks, %d bytes", shard.step(), bytes));
  core.book.Edit(job.job().uid());
  auto& progress = core.book.live(job.job().uid()).progress;
  progress.set_checkpoint_step(std::max(progress.checkpoint_step(), shard.step()));
}

void SendPublish(CoreContext& core, const JobRecord& job, const CheckpointRecord& record) {
  const std::string node = NodeFor(core, job);
  if (node.empty()) return;
  ConnectResponse message;
  auto& publish = *message.mutable_publish_checkpoint();
  publish.set_job_uid(record.job_uid());
  publish.set_epoch(record.checkpoint().epoch());
  publish.set_step(record.checkpoint().step());
  publish.set_stage_path(record.stage_path());
  publish.set_final_path(record.checkpoint().path());
  const std::string key = absl::StrCat("publish ", record.checkpoint().name(), " ",
                                       record.checkpoint().epoch(), " ", record.publish_failures());
  core.SendOnce(core.book.live(record.job_uid()), key, node, 2 * core.options.resend, message);
}

// The flag is cleared in the step after the message left, so that a crash between repeats the
// message; no launch begins before it is cleared, so that a repeat cannot hit a newer directory of
// the same name.
void DriveRemoval(CoreContext& core, const JobRecord& job, CheckpointRecord record) {
  LiveJob& live = core.book.live(record.job_uid());
  const std::string key = absl::StrCat("remove ", record.checkpoint().name());
  for (const auto& [sent_key, sent] : live.sent) {
    if (sent_key.rfind(key + "@", 0) != 0) continue;
    live.sent.erase(sent_key);
    record.set_remove_pending(false);
    core.book.PutCheckpoint(record);
    return;
  }
  const std::string node = NodeFor(core, job);
  if (node.empty()) return;
  ConnectResponse message;
  message.mutable_remove_checkpoint()->set_job_uid(record.job_uid());
  message.mutable_remove_checkpoint()->set_path(record.checkpoint().path());
  core.SendOnce(live, key, node, core.options.resend, message);
}

void Retain(CoreContext& core, const JobRecord& job) {
  const v1::CheckpointSpec& spec = job.job().spec().checkpoint();
  const size_t keep = spec.has_keep() ? std::max(1, spec.keep()) : kDefaultKeep;
  std::vector<CheckpointRecord> available;
  for (const auto& [name, record] : core.book.checkpoints(job.job().uid())) {
    if (record.checkpoint().state() == v1::CHECKPOINT_STATE_AVAILABLE &&
        !record.checkpoint().final()) {
      available.push_back(record);
    }
  }
  if (available.size() <= keep) return;
  std::sort(available.begin(), available.end(), [](const auto& a, const auto& b) {
    return a.checkpoint().step() > b.checkpoint().step();
  });
  for (size_t i = keep; i < available.size(); ++i) {
    available[i].mutable_checkpoint()->set_state(v1::CHECKPOINT_STATE_DELETED);
    available[i].set_remove_pending(true);
    core.book.PutCheckpoint(available[i]);
    core.book.AddEvent(
        job.job().name(), job.job().epoch(), "CheckpointRemoved", v1::EVENT_SEVERITY_INFO,
        absl::StrFormat("step %d; the newest %d are kept", available[i].checkpoint().step(), keep));
  }
}

}  // namespace

void CommitCheckpoints(CoreContext& core, const std::string& uid, const AttemptFacts& facts) {
  // Parts of one checkpoint agree in step, kind and both paths.
  using Key = std::tuple<int64_t, bool, std::string, std::string>;
  std::map<Key, std::map<int, const CheckpointShard*>> parts;
  for (const CheckpointShard& shard : facts.shards) {
    parts[{shard.step(), shard.final(), shard.stage_path(), shard.final_path()}][shard.rank()] =
        &shard;
  }
  const JobRecord& job = *core.book.Find(uid);
  for (const auto& [key, shards] : parts) {
    if (shards.size() != static_cast<size_t>(facts.world)) continue;
    const CheckpointShard& any = *shards.begin()->second;
    const auto& known = core.book.checkpoints(uid);
    const auto it = known.find(MakeCheckpointName(job.job().name(), any.step(), any.final()));
    if (it != known.end()) {
      const v1::Checkpoint& old = it->second.checkpoint();
      if (old.epoch() == job.job().epoch() || IsUsable(old)) continue;
    }
    int64_t bytes = 0;
    for (const auto& [rank, shard] : shards) bytes += shard->bytes();
    Commit(core, job, any, bytes);
  }
}

void DriveCheckpoints(CoreContext& core, const std::string& uid) {
  const JobRecord& job = *core.book.Find(uid);
  const auto records = core.book.checkpoints(uid);  // a copy: the loop changes them
  for (const auto& [name, record] : records) {
    if (record.checkpoint().state() == v1::CHECKPOINT_STATE_COMMITTED)
      SendPublish(core, job, record);
    if (record.remove_pending()) DriveRemoval(core, job, record);
  }
}

void OnEvaluated(CoreContext& core, const std::string& uid, const trainer::v1::Eval& eval) {
  auto& losses = *core.book.Edit(uid).mutable_launch()->mutable_eval_losses();
  losses[eval.step()] = eval.loss();
  while (losses.size() > kKeptEvaluations) {
    losses.erase(std::min_element(losses.begin(), losses.end(),
                                  [](const auto& a, const auto& b) { return a.first < b.first; }));
  }
  for (auto [name, record] : core.book.checkpoints(uid)) {  // a copy of each
    if (record.checkpoint().step() != eval.step() || !IsUsable(record.checkpoint())) continue;
    record.mutable_checkpoint()->set_eval_loss(eval.loss());
    core.book.PutCheckpoint(record);
  }
}

void OnCheckpointPublished(CoreContext& core, const agent::v1::CheckpointPublished& published) {
  const JobRecord* job = core.book.Find(published.job_uid());
  if (job == nullptr) return;
  for (auto [name, record] : core.book.checkpoints(published.job_uid())) {
    v1::Checkpoint& checkpoint = *record.mutable_checkpoint();
    if (checkpoint.state() != v1::CHECKPOINT_STATE_COMMITTED ||
        checkpoint.path() != published.final_path() || checkpoint.epoch() != published.epoch()) {
      continue;
    }
    core.book.Edit(published.job_uid());
    if (published.error().empty()) {
      checkpoint.set_state(v1::CHECKPOINT_STATE_AVAILABLE);
      if (published.bytes() > 0) checkpoint.set_bytes(published.bytes());
      core.book.PutCheckpoint(record);
      core.book.AddEvent(job->job().name(), checkpoint.epoch(), "CheckpointAvailable",
                         v1::EVENT_SEVERITY_INFO, checkpoint.path());
      Retain(core, *job);
    } else {
      record.set_publish_failures(record.publish_failures() + 1);
      const bool give_up = record.publish_failures() >= kPublishTries;
      if (give_up) checkpoint.set_state(v1::CHECKPOINT_STATE_CORRUPT);
      core.book.PutCheckpoint(record);
      core.book.AddEvent(job->job().name(), checkpoint.epoch(), "CheckpointPublishFailed",
                         give_up ? v1::EVENT_SEVERITY_ERROR : v1::EVENT_SEVERITY_WARNING,
                         absl::StrCat(checkpoint.path(), ": ", published.error()));
    }
    return;
  }
}

void MarkCorrupt(CoreContext& core, const std::string& uid, const std::string& path) {
  const JobRecord& job = *core.book.Find(uid);
  for (auto [name, record] : core.book.checkpoints(uid)) {
    if (record.checkpoint().path() != path ||
        record.checkpoint().state() != v1::CHECKPOINT_STATE_AVAILABLE) {
      continue;
    }
    record.mutable_checkpoint()->set_state(v1::CHECKPOINT_STATE_CORRUPT);
    record.set_remove_pending(true);
    core.book.PutCheckpoint(record);
    core.book.AddEvent(job.job().name(), job.job().epoch(), "CheckpointCorrupt",
                       v1::EVENT_SEVERITY_ERROR,
                       absl::StrCat(path, " failed its check and is not used again"));
    return;
  }
}

const CheckpointRecord* NewestUsable(const JobBook& book, const std::string& uid) {
  const CheckpointRecord* newest = nullptr;
  for (const auto& [name, record] : book.checkpoints(uid)) {
    if (record.checkpoint().state() != v1::CHECKPOINT_STATE_AVAILABLE) continue;
    if (newest == nullptr || record.checkpoint().step() > newest->checkpoint().step())
      newest = &record;
  }
  return newest;
}

bool HasUnpublished(const JobBook& book, const std::string& uid) {
  const auto& records = book.checkpoints(uid);
  return std::any_of(records.begin(), records.end(), [](const auto& entry) {
    return entry.second.checkpoint().state() == v1::CHECKPOINT_STATE_COMMITTED;
  });
}

bool HasPendingRemoval(const JobBook& book, const std::string& uid) {
  const auto& records = book.checkpoints(uid);
  return std::any_of(records.begin(), records.end(),
                     [](const auto& entry) { return entry.second.remove_pending(); });
}

const CheckpointRecord* FinalOf(const JobBook& book, const std::string& uid, int64_t epoch) {
  for (const auto& [name, record] : book.checkpoints(uid)) {
    const v1::Checkpoint& checkpoint = record.checkpoint();
    if (checkpoint.final() && checkpoint.epoch() == epoch && IsUsable(checkpoint)) return &record;
  }
  return nullptr;
}

}  // namespace switchyard::coordinator
