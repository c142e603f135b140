#include "coordinator/job/sqlite_job_store.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/status_macros.h"
#include "coordinator/job/job_state.h"
#include "coordinator/job/store_schema.h"

namespace switchyard::coordinator {
namespace {

constexpr int kKeptRequests = 100000;

// SQLite's exceptions end here.
template <typename Function>
auto Guard(Function function) -> decltype(function()) {
  try {
    return function();
  } catch (const SQLite::Exception& e) {
    const int code = e.getErrorCode();
    const std::string text = absl::StrCat("state store: ", e.what());
    if (code == SQLITE_FULL || code == SQLITE_IOERR) return absl::ResourceExhaustedError(text);
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return absl::DataLossError(text);
    if (code == SQLITE_CANTOPEN || code == SQLITE_READONLY || code == SQLITE_PERM) {
      return absl::PermissionDeniedError(text);
    }
    return absl::InternalError(text);
  }
}

void BindBlob(SQLite::Statement& statement, int index, const std::string& bytes) {
  statement.bind(index, bytes.data(), static_cast<int>(bytes.size()));
}

template <typename Message>
bool ParseColumn(const SQLite::Column& column, Message& message) {
  return message.ParseFromArray(column.getBlob(), column.getBytes());
}

}  // namespace

struct SqliteJobStore::Impl {
  explicit Impl(const std::string& path)
      : database(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000) {}
  absl::Mutex mutex;  // ListEvents comes from other threads
  SQLite::Database database;

  SQLite::Statement Prepare(const char* sql) { return SQLite::Statement(database, sql); }
};

SqliteJobStore::SqliteJobStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SqliteJobStore::~SqliteJobStore() = default;

absl::StatusOr<std::unique_ptr<SqliteJobStore>> SqliteJobStore::Open(
    const std::string& path, const std::string& program_version) {
  return Guard([&]() -> absl::StatusOr<std::unique_ptr<SqliteJobStore>> {
    auto impl = std::make_unique<Impl>(path);
    SQLite::Database& db = impl->database;
    SWITCHYARD_RETURN_IF_ERROR(CheckSchema(db, path));
    const std::string check = db.execAndGet("PRAGMA quick_check(1)").getString();
    if (check != "ok") {
      return absl::DataLossError(absl::StrCat(path, " is damaged (", check, "): restore a backup"));
    }
    db.exec("PRAGMA journal_mode=WAL");
    db.exec("PRAGMA synchronous=FULL");
    db.exec("PRAGMA journal_size_limit=67108864");
    db.exec("PRAGMA trusted_schema=OFF");
    db.exec("PRAGMA temp_store=MEMORY");
    SWITCHYARD_RETURN_IF_ERROR(MigrateSchema(db, path, program_version));
    return std::unique_ptr<SqliteJobStore>(new SqliteJobStore(std::move(impl)));
  });
}

absl::StatusOr<StoreSnapshot> SqliteJobStore::Load() {
  absl::MutexLock lock(&impl_->mutex);
  return Guard([&]() -> absl::StatusOr<StoreSnapshot> {
    StoreSnapshot snapshot;
    bool intact = true;
    auto meta = impl_->Prepare("SELECT key, value FROM meta");
    while (meta.executeStep()) {
      const std::string key = meta.getColumn(0).getString();
      if (key == "store_id") snapshot.store_id = meta.getColumn(1).getString();
      if (key == "last_sequence")
        snapshot.last_sequence = std::stoll(meta.getColumn(1).getString());
    }
    auto jobs = impl_->Prepare("SELECT record FROM jobs ORDER BY uid");
    while (jobs.executeStep())
      intact &= ParseColumn(jobs.getColumn(0), snapshot.jobs.emplace_back());
    auto checkpoints = impl_->Prepare("SELECT record FROM checkpoints ORDER BY job_uid, name");
    while (checkpoints.executeStep()) {
      intact &= ParseColumn(checkpoints.getColumn(0), snapshot.checkpoints.emplace_back());
    }
    auto nodes = impl_->Prepare("SELECT record FROM nodes ORDER BY name");
    while (nodes.executeStep()) {
      intact &= ParseColumn(nodes.getColumn(0), snapshot.nodes.emplace_back());
    }
    auto changes = impl_->Prepare("SELECT revision, name, job FROM changes ORDER BY revision");
    while (changes.executeStep()) {
      ChangeRecord& change = snapshot.changes.emplace_back();
      change.revision = changes.getColumn(0).getInt64();
      change.name = changes.getColumn(1).getString();
      if (!changes.getColumn(2).isNull()) {
        intact &= ParseColumn(changes.getColumn(2), change.job.emplace());
      }
    }
    if (!snapshot.changes.empty()) {
      auto events = impl_->Prepare("SELECT event FROM events WHERE sequence > ? ORDER BY sequence");
      events.bind(1, snapshot.changes.front().revision);
      while (events.executeStep())
        intact &= ParseColumn(events.getColumn(0), snapshot.events.emplace_back());
    }
    if (!intact)
      return absl::DataLossError("state store: a record cannot be read: restore a backup");
    return snapshot;
  });
}

absl::Status SqliteJobStore::Commit(const WriteBatch& batch) {
  absl::MutexLock lock(&impl_->mutex);
  return Guard([&]() -> absl::Status {
    SQLite::Transaction transaction(impl_->database, SQLite::TransactionBehavior::IMMEDIATE);
    int64_t last_sequence = 0;
    for (const std::string& uid : batch.delete_jobs) {
      auto events = impl_->Prepare(
          "DELETE FROM events WHERE resource = (SELECT name FROM jobs WHERE uid = ?)");
      events.bind(1, uid);
      events.exec();
      for (const char* sql :
           {"DELETE FROM checkpoints WHERE job_uid = ?", "DELETE FROM jobs WHERE uid = ?"}) {
        auto statement = impl_->Prepare(sql);
        statement.bind(1, uid);
        statement.exec();
      }
    }
    for (const std::string& name : batch.delete_nodes) {
      for (const char* sql :
           {"DELETE FROM events WHERE resource = ?", "DELETE FROM nodes WHERE name = ?"}) {
        auto statement = impl_->Prepare(sql);
        statement.bind(1, name);
        statement.exec();
      }
    }
    for (const auto& record : batch.put_jobs) {
      auto statement = impl_->Prepare("INSERT OR REPLACE INTO jobs VALUES(?, ?, ?, ?, ?, ?)");
      statement.bind(1, record.job().uid());
      statement.bind(2, record.job().name());
      statement.bind(3, StateName(record.job().state()));
      statement.bind(4, v1::DesiredState_Name(record.job().desired_state()));
      statement.bind(5, record.job().epoch());
      BindBlob(statement, 6, record.SerializeAsString());
      statement.exec();
    }
    for (const auto& record : batch.put_checkpoints) {
      auto statement = impl_->Prepare("INSERT OR REPLACE INTO checkpoints VALUES(?, ?, ?)");
      statement.bind(1, record.job_uid());
      statement.bind(2, record.checkpoint().name());
      BindBlob(statement, 3, record.SerializeAsString());
      statement.exec();
    }
    for (const auto& record : batch.put_nodes) {
      auto statement = impl_->Prepare("INSERT OR REPLACE INTO nodes VALUES(?, ?)");
      statement.bind(1, record.node().name());
      BindBlob(statement, 2, record.SerializeAsString());
      statement.exec();
    }
    for (const auto& event : batch.events) {
      auto statement = impl_->Prepare("INSERT INTO events VALUES(?, ?, ?)");
      statement.bind(1, event.sequence());
      statement.bind(2, event.resource());
      BindBlob(statement, 3, event.SerializeAsString());
      statement.exec();
      last_sequence = std::max(last_sequence, event.sequence());
    }
    for (const auto& change : batch.changes) {
      auto statement = impl_->Prepare("INSERT INTO changes VALUES(?, ?, ?)");
      statement.bind(1, change.revision);
      statement.bind(2, change.name);
      if (change.job) BindBlob(statement, 3, change.job->SerializeAsString());
      statement.exec();
      last_sequence = std::max(last_sequence, change.revision);
    }
    for (const auto& request : batch.requests) {
      auto statement = impl_->Prepare("INSERT OR REPLACE INTO requests VALUES(?, ?, ?)");
      statement.bind(1, request.request_id);
      statement.bind(2, request.request_hash);
      BindBlob(statement, 3, request.response);
      statement.exec();
    }
    if (!batch.requests.empty()) {
      impl_->database.exec(absl::StrFormat(
          "DELETE FROM requests WHERE rowid <= (SELECT max(rowid) FROM requests) - %d",
          kKeptRequests));
    }
    if (!batch.changes.empty()) {
      impl_->database.exec(
          absl::StrFormat("DELETE FROM changes WHERE revision <= (SELECT revision FROM changes "
                          "ORDER BY revision DESC "
                          "LIMIT 1 OFFSET %d)",
                          kKeptChanges));
    }
    if (last_sequence > 0) {
      impl_->database.exec(absl::StrFormat(
          "UPDATE meta SET value = '%d' WHERE key = 'last_sequence'", last_sequence));
    }
    transaction.commit();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::optional<RequestRecord>> SqliteJobStore::FindRequest(
    const std::string& request_id) {
  absl::MutexLock lock(&impl_->mutex);
  return Guard([&]() -> absl::StatusOr<std::optional<RequestRecord>> {
    auto statement = impl_->Prepare("SELECT hash, response FROM requests WHERE request_id = ?");
    statement.bind(1, request_id);
    if (!statement.executeStep()) return std::optional<RequestRecord>();
    RequestRecord record{request_id, statement.getColumn(0).getString(), ""};
    const SQLite::Column response = statement.getColumn(1);
    record.response.assign(static_cast<const char*>(response.getBlob()), response.getBytes());
    return std::optional<RequestRecord>(std::move(record));
  });
}

absl::StatusOr<std::vector<v1::Event>> SqliteJobStore::ListEvents(const std::string& resource,
                                                                  int64_t after, int limit) {
  absl::MutexLock lock(&impl_->mutex);
  return Guard([&]() -> absl::StatusOr<std::vector<v1::Event>> {
    std::vector<v1::Event> events;
    auto statement = impl_->Prepare(
        "SELECT event FROM events WHERE resource = ? AND sequence > ? ORDER BY sequence LIMIT ?");
    statement.bind(1, resource);
    statement.bind(2, after);
    statement.bind(3, limit);
    while (statement.executeStep()) {
      if (!ParseColumn(statement.getColumn(0), events.emplace_back())) {
        return absl::DataLossError("state store: an event cannot be read");
      }
    }
    return events;
  });
}

}  // namespace switchyard::coordinator
