// Schema of the coordinator's store: numbered migrations, each tested against a store that the
// release before it wrote. Forward only; a backup is made first.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace SQLite {
class Database;
}

namespace switchyard::coordinator {

// FailedPrecondition, with the program that can read it, when the file is of a newer schema or of
// another program. Throws what SQLite throws.
absl::Status CheckSchema(SQLite::Database& db, const std::string& path);

// Brings a new or older store to the newest schema, each step in a transaction of its own. Before
// the first step of an older one its backup is made: "{path}.schema-{N}.bak". `program_version` is
// noted as the writer.
absl::Status MigrateSchema(SQLite::Database& db, const std::string& path,
                           const std::string& program_version);

}  // namespace switchyard::coordinator
