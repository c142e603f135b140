#include "coordinator/cli/up_record.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(UpOptions, listen, bin_dir, metrics, agent_metrics, cpu_slots,
                                   plain_text, secure, roots)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Daemon, name, address, log, pid, start_ticks, boot_id)

Daemon* UpRecord::Find(const std::string& name) {
  const auto found = std::find_if(daemons.begin(), daemons.end(),
                                  [&](const Daemon& daemon) { return daemon.name == name; });
  return found == daemons.end() ? nullptr : &*found;
}

absl::StatusOr<UpRecord> ReadUpRecord(const std::string& file) {
  UpRecord record;
  std::ifstream in(file);
  if (!in) return record;
  try {
    const auto document = nlohmann::json::parse(in);
    document.at("daemons").get_to(record.daemons);
    if (document.contains("options")) record.options = document["options"].get<UpOptions>();
  } catch (const nlohmann::json::exception& error) {
    return absl::FailedPreconditionError(absl::StrCat(file, " cannot be read (", error.what(),
                                                      "); look for running daemons and remove it"));
  }
  return record;
}

absl::Status WriteUpRecord(const std::string& file, const UpRecord& record) {
  nlohmann::json document{{"daemons", record.daemons}};
  if (record.options.has_value()) document["options"] = *record.options;
  const std::string temporary = file + ".new";
  std::ofstream out(temporary, std::ios::trunc);
  out << document.dump(2) << "\n";
  out.close();
  if (!out || std::rename(temporary.c_str(), file.c_str()) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", file, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::coordinator
