#include "coordinator/history/metrics_store.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <stop_token>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "coordinator/job/proto_time.h"

namespace switchyard::coordinator {
namespace {

constexpr char kSchema[] = R"(
CREATE TABLE IF NOT EXISTS steps(id INTEGER PRIMARY KEY, uid TEXT NOT NULL, step INTEGER NOT NULL,
  time REAL NOT NULL, sample BLOB NOT NULL, UNIQUE(uid, step)) STRICT;
CREATE INDEX IF NOT EXISTS steps_by_arrival ON steps(uid, id);
CREATE TABLE IF NOT EXISTS loads(uid TEXT PRIMARY KEY, load BLOB NOT NULL) STRICT;
)";
constexpr size_t kMaxPending = 100000;
constexpr std::chrono::milliseconds kWriteInterval{250};

void BindBlob(SQLite::Statement& statement, int index, const std::string& bytes) {
  statement.bind(index, bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

struct MetricsStore::Impl {
  explicit Impl(const std::string& path)
      : database(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000) {
    database.exec("PRAGMA journal_mode=WAL");
    database.exec("PRAGMA synchronous=NORMAL");
    database.exec(kSchema);
    last_id = database.execAndGet("SELECT ifnull(max(id), 0) FROM steps").getInt64();
  }

  using Write = std::function<void(SQLite::Database&)>;

  void Queue(Write write) {
    std::lock_guard lock(queue_mutex);
    QueueLocked(std::move(write));
  }

  // Caller holds queue_mutex.
  void QueueLocked(Write write) {
    if (pending.size() >= kMaxPending) return;  // telemetry may be lost, memory may not grow
    pending.push_back(std::move(write));
  }

  // Caller holds database_mutex.
  void WritePending() {
    std::vector<Write> writes;
    {
      std::lock_guard lock(queue_mutex);
      writes.swap(pending);
    }
    if (writes.empty()) return;
    try {
      SQLite::Transaction transaction(database);
      for (const Write& write : writes) write(database);
      transaction.commit();
    } catch (const SQLite::Exception& e) {
      log::Warning("metrics.write_failed", {{"error", e.what()}, {"lost", writes.size()}});
    }
  }

  std::mutex database_mutex;
  SQLite::Database database;
  std::mutex queue_mutex;
  std::vector<Write> pending;
  std::atomic<int64_t> last_id{0};
  std::map<std::string, std::string> uid_by_name;  // coordinator thread only
  std::condition_variable_any wake;
  std::jthread writer;
};

MetricsStore::MetricsStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  impl_->writer = std::jthread([impl = impl_.get()](std::stop_token stop) {
    std::unique_lock lock(impl->database_mutex);
    while (!stop.stop_requested()) {
      impl->wake.wait_for(lock, stop, kWriteInterval, [] { return false; });
      impl->WritePending();
    }
    impl->WritePending();
  });
}

MetricsStore::~MetricsStore() {
  impl_->writer.request_stop();
  impl_->writer.join();
}

absl::StatusOr<std::unique_ptr<MetricsStore>> MetricsStore::Open(const std::string& path) {
  for (bool again : {false, true}) {
    try {
      return std::unique_ptr<MetricsStore>(new MetricsStore(std::make_unique<Impl>(path)));
    } catch (const SQLite::Exception& e) {
      if (again) return absl::InternalError(absl::StrCat("metrics store ", path, ": ", e.what()));
      log::Warning("metrics.put_aside", {{"path", path}, {"error", e.what()}});
      std::error_code error;
      std::filesystem::rename(path, path + ".damaged", error);
      std::filesystem::remove(path + "-wal", error);
      std::filesystem::remove(path + "-shm", error);
    }
  }
  return absl::InternalError("not reached");
}

void MetricsStore::OnJobChanged(const v1::Job& job) { impl_->uid_by_name[job.name()] = job.uid(); }

void MetricsStore::OnStep(const v1::Job& job, const v1::StepSample& sample) {
  // The id and the place in the queue at once: who sees the id finds the step.
  std::lock_guard lock(impl_->queue_mutex);
  const int64_t id = ++impl_->last_id;
  impl_->QueueLocked([id, uid = job.uid(), sample](SQLite::Database& database) {
    SQLite::Statement statement(database, "INSERT OR REPLACE INTO steps VALUES(?, ?, ?, ?, ?)");
    statement.bind(1, id);
    statement.bind(2, uid);
    statement.bind(3, sample.step());
    statement.bind(4, ToSeconds(sample.time()));
    BindBlob(statement, 5, sample.SerializeAsString());
    statement.exec();
  });
}

void MetricsStore::OnExpertLoad(const v1::Job& job, const v1::ExpertLoad& load) {
  impl_->Queue([uid = job.uid(), bytes = load.SerializeAsString()](SQLite::Database& database) {
    SQLite::Statement statement(database, "INSERT OR REPLACE INTO loads VALUES(?, ?)");
    statement.bind(1, uid);
    BindBlob(statement, 2, bytes);
    statement.exec();
  });
}

void MetricsStore::OnJobRemoved(const std::string& name) {
  const auto it = impl_->uid_by_name.find(name);
  if (it == impl_->uid_by_name.end()) return;
  impl_->Queue([uid = it->second](SQLite::Database& database) {
    for (const char* sql : {"DELETE FROM steps WHERE uid = ?", "DELETE FROM loads WHERE uid = ?"}) {
      SQLite::Statement statement(database, sql);
      statement.bind(1, uid);
      statement.exec();
    }
  });
  impl_->uid_by_name.erase(it);
}

int64_t MetricsStore::LastId() const { return impl_->last_id; }

absl::StatusOr<std::vector<v1::StepSample>> MetricsStore::Query(const std::string& uid,
                                                                int64_t after_step,
                                                                double after_time_s, int limit) {
  std::lock_guard lock(impl_->database_mutex);
  impl_->WritePending();
  try {
    SQLite::Statement count(impl_->database,
                            "SELECT count(*) FROM steps WHERE uid = ? AND step > ? AND time > ?");
    SQLite::Statement select(
        impl_->database,
        "SELECT sample FROM steps WHERE uid = ? AND step > ? AND time > ? ORDER BY step");
    for (SQLite::Statement* statement : {&count, &select}) {
      statement->bind(1, uid);
      statement->bind(2, after_step);
      statement->bind(3, after_time_s);
    }
    count.executeStep();
    const int64_t total = count.getColumn(0).getInt64();
    const int64_t kept = std::min<int64_t>(total, std::max(1, limit));
    std::vector<v1::StepSample> samples;
    samples.reserve(kept);
    for (int64_t i = 0; select.executeStep(); ++i) {
      // Row i is taken when it is the one that sample number size() falls on.
      const int64_t next = static_cast<int64_t>(samples.size());
      const int64_t wanted = kept == 1 ? total - 1 : next * (total - 1) / (kept - 1);
      if (next >= kept || i != wanted) continue;
      const SQLite::Column column = select.getColumn(0);
      samples.emplace_back().ParseFromArray(column.getBlob(), column.getBytes());
    }
    return samples;
  } catch (const SQLite::Exception& e) {
    return absl::InternalError(absl::StrCat("metrics store: ", e.what()));
  }
}

absl::StatusOr<std::vector<RecordedStep>> MetricsStore::After(const std::string& uid, int64_t id,
                                                              int limit) {
  std::lock_guard lock(impl_->database_mutex);
  impl_->WritePending();
  try {
    SQLite::Statement select(
        impl_->database,
        "SELECT id, sample FROM steps WHERE uid = ? AND id > ? ORDER BY id LIMIT ?");
    select.bind(1, uid);
    select.bind(2, id);
    select.bind(3, limit);
    std::vector<RecordedStep> steps;
    while (select.executeStep()) {
      RecordedStep& step = steps.emplace_back();
      step.id = select.getColumn(0).getInt64();
      const SQLite::Column column = select.getColumn(1);
      step.sample.ParseFromArray(column.getBlob(), column.getBytes());
    }
    return steps;
  } catch (const SQLite::Exception& e) {
    return absl::InternalError(absl::StrCat("metrics store: ", e.what()));
  }
}

absl::StatusOr<std::optional<v1::ExpertLoad>> MetricsStore::Load(const std::string& uid) {
  std::lock_guard lock(impl_->database_mutex);
  impl_->WritePending();
  try {
    SQLite::Statement select(impl_->database, "SELECT load FROM loads WHERE uid = ?");
    select.bind(1, uid);
    if (!select.executeStep()) return std::optional<v1::ExpertLoad>();
    v1::ExpertLoad load;
    load.ParseFromArray(select.getColumn(0).getBlob(), select.getColumn(0).getBytes());
    return std::optional<v1::ExpertLoad>(load);
  } catch (const SQLite::Exception& e) {
    return absl::InternalError(absl::StrCat("metrics store: ", e.what()));
  }
}

}  // namespace switchyard::coordinator
