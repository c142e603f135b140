#include "coordinator/job/store_schema.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <filesystem>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

constexpr int kApplicationId = 0x53575944;  // "SWYD"

// Migration N brings schema N to N + 1; never changed once released.
constexpr const char* kMigrations[] = {
    R"(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE jobs(uid TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
  desired_state TEXT NOT NULL, epoch INTEGER NOT NULL, record BLOB NOT NULL) STRICT;
CREATE TABLE checkpoints(job_uid TEXT NOT NULL, name TEXT NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY(job_uid, name)) STRICT;
CREATE TABLE nodes(name TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE events(sequence INTEGER PRIMARY KEY, resource TEXT NOT NULL, event BLOB NOT NULL) STRICT;
CREATE INDEX events_by_resource ON events(resource, sequence);
CREATE TABLE changes(revision INTEGER PRIMARY KEY, name TEXT NOT NULL, job BLOB) STRICT;
CREATE TABLE requests(request_id TEXT PRIMARY KEY, hash TEXT NOT NULL, response BLOB NOT NULL) STRICT;
INSERT INTO meta VALUES('store_id', lower(hex(randomblob(8)))), ('last_sequence', '0');
)",
    // Who wrote it last, so that an older program can say which one reads it.
    "INSERT INTO meta VALUES('program_version', '');",
};
constexpr int kNewestSchema = std::size(kMigrations);

// Program that last wrote the store; empty for stores that do not say so.
std::string WriterOf(SQLite::Database& db) {
  if (!db.tableExists("meta")) return "";
  SQLite::Statement query(db, "SELECT value FROM meta WHERE key = 'program_version'");
  return query.executeStep() ? query.getColumn(0).getString() : "";
}

// A copy that is complete or not there at all.
absl::Status BackUp(SQLite::Database& db, const std::string& backup) {
  namespace fs = std::filesystem;
  const std::string unfinished = backup + ".new";
  std::error_code error;
  fs::remove(unfinished, error);
  SQLite::Statement copy(db, "VACUUM INTO ?");
  copy.bind(1, unfinished);
  copy.exec();
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd file, OpenToRead(unfinished));
  SWITCHYARD_RETURN_IF_ERROR(SyncFile(file.get(), unfinished));
  fs::rename(unfinished, backup, error);
  if (error) return FileError(error.value(), "write", backup);
  return SyncDirectory(fs::path(backup).parent_path().string());
}

}  // namespace

absl::Status CheckSchema(SQLite::Database& db, const std::string& path) {
  const int application = db.execAndGet("PRAGMA application_id").getInt();
  const int schema = db.execAndGet("PRAGMA user_version").getInt();
  if (application != 0 && application != kApplicationId) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not a Switchyard state store"));
  }
  if (schema <= kNewestSchema) return absl::OkStatus();
  const std::string writer = WriterOf(db);
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s has schema %d, this program knows up to %d: run version %s, which wrote it, or go back "
      "to %s.schema-%d.bak, the backup of before its migration",
      path, schema, kNewestSchema, writer.empty() ? "(unknown)" : writer, path, kNewestSchema));
}

absl::Status MigrateSchema(SQLite::Database& db, const std::string& path,
                           const std::string& program_version) {
  const int found = db.execAndGet("PRAGMA user_version").getInt();
  if (found > 0 && found < kNewestSchema) {
    const std::string backup = absl::StrFormat("%s.schema-%d.bak", path, found);
    SWITCHYARD_RETURN_IF_ERROR(BackUp(db, backup));
    log::Info("store.migrating", {{"from", found}, {"to", kNewestSchema}, {"backup", backup}});
  }
  for (int schema = found; schema < kNewestSchema; ++schema) {
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    db.exec(kMigrations[schema]);
    db.exec(absl::StrFormat("PRAGMA application_id=%d", kApplicationId));
    db.exec(absl::StrFormat("PRAGMA user_version=%d", schema + 1));
    transaction.commit();
  }
  if (WriterOf(db) == program_version) return absl::OkStatus();
  SQLite::Statement note(db, "UPDATE meta SET value = ? WHERE key = 'program_version'");
  note.bind(1, program_version);
  note.exec();
  return absl::OkStatus();
}

}  // namespace switchyard::coordinator
