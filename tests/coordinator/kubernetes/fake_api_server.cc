#include "tests/coordinator/kubernetes/fake_api_server.h"

#include <httplib.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/security/issue.h"

namespace switchyard::coordinator {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

std::string Now() {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
}

void Answer(httplib::Response& response, int code, const std::string& reason,
            const std::string& message) {
  response.status = code;
  response.set_content(
      Json{{"kind", "Status"}, {"code", code}, {"reason", reason}, {"message", message}}.dump(),
      "application/json");
}

// "a=b" against an object's labels.
bool Selects(const std::string& selector, const Json& object) {
  const std::vector<std::string> words = absl::StrSplit(selector, '=');
  return words.size() != 2 || TextAt(object, {"metadata", "labels", words[0].c_str()}) == words[1];
}

}  // namespace

FakeApiServer::FakeApiServer(const std::string& directory) : directory_(directory) {
  const absl::Time now = absl::Now();
  absl::Status status = security::CreateAuthority(directory, 2, now);
  if (status.ok()) status = security::IssueServer(directory, {"127.0.0.1"}, 2, now);
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
  WriteToken("first");
  server_ = std::make_unique<httplib::SSLServer>((directory + "/tls.crt").c_str(),
                                                 (directory + "/tls.key").c_str());
  server_->new_task_queue = [] { return new httplib::ThreadPool(12); };
  const auto handle = [this](const httplib::Request& request, httplib::Response& response) {
    Handle(request, response);
  };
  server_->Get(".*", handle);
  server_->Post(".*", handle);
  server_->Delete(".*", handle);
  port_ = server_->bind_to_any_port("127.0.0.1");
  thread_ = std::thread([this] { server_->listen_after_bind(); });
  while (!server_->is_running()) std::this_thread::yield();
}

FakeApiServer::~FakeApiServer() {
  {
    const Lock lock(mutex_);
    stopping_ = true;
  }
  server_->stop();
  thread_.join();
}

KubernetesClient::Options FakeApiServer::ClientOptions() const {
  KubernetesClient::Options options;
  options.access = {absl::StrCat("https://127.0.0.1:", port_), directory_ + "/ca.crt",
                    directory_ + "/token", "ns"};
  options.requests_per_second = 1000;
  options.patience = absl::Seconds(5);
  options.first_backoff = absl::Milliseconds(20);
  return options;
}

void FakeApiServer::WriteToken(const std::string& token) const {
  std::ofstream(directory_ + "/token") << token << "\n";
}
void FakeApiServer::Accept(std::set<std::string> tokens) {
  const Lock lock(mutex_);
  tokens_ = std::move(tokens);
}
void FakeApiServer::SetMinor(int minor) {
  const Lock lock(mutex_);
  minor_ = minor;
}
void FakeApiServer::SetPageSize(int size) {
  const Lock lock(mutex_);
  page_size_ = size;
}
void FakeApiServer::Forbid(std::set<std::string> rights) {
  const Lock lock(mutex_);
  forbidden_ = std::move(rights);
}
void FakeApiServer::Give(Trouble trouble) {
  const Lock lock(mutex_);
  troubles_.push_back(std::move(trouble));
}
void FakeApiServer::SetLinger(bool linger) {
  const Lock lock(mutex_);
  linger_ = linger;
  if (linger) return;
  for (const std::string& name : Names("jobs")) {
    if (TextAt(Find("jobs", name), {"metadata", "deletionTimestamp"}).empty()) continue;
    RemovePodsOf(name, false);
    Remove("jobs", name);
  }
}
void FakeApiServer::Forget() {
  const Lock lock(mutex_);
  forgotten_ = ++version_;
}
void FakeApiServer::EndWatches() {
  const Lock lock(mutex_);
  ++watch_round_;
}

void FakeApiServer::Change(const std::string& type, const std::string& plural,
                           const std::string& name, Json object) {
  object["metadata"]["name"] = name;
  object["metadata"]["resourceVersion"] = absl::StrCat(++version_);
  if (TextAt(object, {"metadata", "uid"}).empty())
    object["metadata"]["uid"] = absl::StrCat("uid-", ++uids_);
  if (type == "DELETED") {
    objects_[plural].erase(name);
  } else {
    objects_[plural][name] = object;
  }
  events_.push_back({version_, plural, type, std::move(object)});
}

void FakeApiServer::Put(const std::string& plural, const std::string& name, Json object) {
  const Lock lock(mutex_);
  Change(Has(plural, name) ? "MODIFIED" : "ADDED", plural, name, std::move(object));
}
void FakeApiServer::Remove(const std::string& plural, const std::string& name) {
  const Lock lock(mutex_);
  if (Has(plural, name)) Change("DELETED", plural, name, Find(plural, name));
}
bool FakeApiServer::Has(const std::string& plural, const std::string& name) const {
  const Lock lock(mutex_);
  const auto kind = objects_.find(plural);
  return kind != objects_.end() && kind->second.count(name) > 0;
}
Json FakeApiServer::Find(const std::string& plural, const std::string& name) const {
  const Lock lock(mutex_);
  return Has(plural, name) ? objects_.at(plural).at(name) : Json();
}
std::vector<std::string> FakeApiServer::Names(const std::string& plural) const {
  const Lock lock(mutex_);
  std::vector<std::string> names;
  if (const auto kind = objects_.find(plural); kind != objects_.end()) {
    for (const auto& [name, object] : kind->second) names.push_back(name);
  }
  return names;
}
void FakeApiServer::SetPod(const std::string& job, const Json& status, const std::string& machine) {
  const Lock lock(mutex_);
  Json pod = Find("pods", job + "-pod");
  pod["status"] = status;
  if (!machine.empty()) pod["spec"]["nodeName"] = machine;
  Put("pods", job + "-pod", std::move(pod));
}
void FakeApiServer::SetJob(const std::string& job, const Json& status) {
  const Lock lock(mutex_);
  Json object = Find("jobs", job);
  object["status"] = status;
  Put("jobs", job, std::move(object));
}

int FakeApiServer::Count(const std::string& method, const std::string& part) const {
  return static_cast<int>(Bodies(method, part).size());
}
std::vector<Json> FakeApiServer::Bodies(const std::string& method, const std::string& part) const {
  const Lock lock(mutex_);
  std::vector<Json> bodies;
  for (const Seen& seen : seen_) {
    if (absl::StartsWith(seen.line, method + " ") && absl::StrContains(seen.line, part))
      bodies.push_back(Json::parse(seen.body, nullptr, false));
  }
  return bodies;
}

void FakeApiServer::Handle(const httplib::Request& request, httplib::Response& response) {
  const Lock lock(mutex_);
  seen_.push_back({request.method + " " + request.target, request.body});
  if (tokens_.count(request.get_header_value("Authorization").substr(strlen("Bearer "))) == 0)
    return Answer(response, 401, "Unauthorized", "Unauthorized");
  const auto trouble = std::find_if(troubles_.begin(), troubles_.end(), [&](const Trouble& one) {
    return one.method == request.method && absl::StrContains(request.target, one.path);
  });
  Trouble now;
  if (trouble != troubles_.end()) {
    now = *trouble;
    if (--trouble->times == 0) troubles_.erase(trouble);
    if (!now.retry_after.empty()) response.set_header("Retry-After", now.retry_after);
    if (!now.after_effect) return Answer(response, now.code, "Trouble", now.message);
  }
  if (request.path == "/version") {
    response.set_content(Json{{"major", "1"}, {"minor", absl::StrCat(minor_, "+")}}.dump(),
                         "application/json");
    return;
  }
  const Json body = Json::parse(request.body, nullptr, false);
  if (absl::EndsWith(request.path, "/selfsubjectaccessreviews")) {
    const Json& asked = At(body, {"spec", "resourceAttributes"});
    const std::string right = TextAt(asked, {"verb"}) + " " + TextAt(asked, {"resource"});
    response.status = 201;
    response.set_content(Json{{"status", {{"allowed", forbidden_.count(right) == 0}}}}.dump(),
                         "application/json");
    return;
  }
  const std::vector<std::string> words = absl::StrSplit(
      request.path.substr(request.path.find("/namespaces/ns/") + strlen("/namespaces/ns/")), '/');
  const std::string& plural = words[0];
  const std::string name = words.size() > 1 ? words[1] : "";
  if (request.method == "POST") {
    Create(body, plural, response);
  } else if (request.method == "DELETE") {
    Delete(body, plural, name, response);
  } else if (request.get_param_value("watch") == "true") {
    return Watch(request, response, plural);
  } else if (name.empty()) {
    response.set_content(List(request, plural).dump(), "application/json");
  } else if (Has(plural, name)) {
    response.set_content(Find(plural, name).dump(), "application/json");
  } else {
    Answer(response, 404, "NotFound", absl::StrCat(plural, " \"", name, "\" not found"));
  }
  if (now.after_effect) Answer(response, now.code, "Trouble", now.message);
}

void FakeApiServer::Create(const Json& object, const std::string& plural,
                           httplib::Response& response) {
  const std::string name = TextAt(object, {"metadata", "name"});
  if (Has(plural, name)) {
    return Answer(response, 409, "AlreadyExists",
                  absl::StrCat(plural, " \"", name, "\" already exists"));
  }
  Json made = object;
  made["metadata"]["creationTimestamp"] = Now();
  Put(plural, name, std::move(made));
  if (plural == "jobs") {
    Json pod = {{"metadata", At(object, {"spec", "template", "metadata"})},
                {"spec", At(object, {"spec", "template", "spec"})},
                {"status", {{"phase", "Pending"}}}};
    Put("pods", name + "-pod", std::move(pod));
  }
  response.status = 201;
  response.set_content(Find(plural, name).dump(), "application/json");
}

void FakeApiServer::RemovePodsOf(const std::string& job, bool linger) {
  Json pod = Find("pods", job + "-pod");
  if (pod.is_null()) return;
  pod["metadata"]["deletionTimestamp"] = Now();
  Put("pods", job + "-pod", pod);
  if (!linger) Remove("pods", job + "-pod");
}

void FakeApiServer::Delete(const Json& options, const std::string& plural, const std::string& name,
                           httplib::Response& response) {
  if (!Has(plural, name)) return Answer(response, 404, "NotFound", "not found");
  Json object = Find(plural, name);
  const std::string uid = TextAt(options, {"preconditions", "uid"});
  if (!uid.empty() && uid != TextAt(object, {"metadata", "uid"}))
    return Answer(response, 409, "Conflict", "the UID in the precondition does not match");
  object["metadata"]["deletionTimestamp"] = Now();
  Put(plural, name, object);
  RemovePodsOf(name, linger_);
  if (!linger_) Remove(plural, name);
  response.set_content(object.dump(), "application/json");
}

Json FakeApiServer::List(const httplib::Request& request, const std::string& plural) {
  const std::string after = request.get_param_value("continue");
  Json items = Json::array();
  std::string next;
  for (const auto& [name, object] : objects_[plural]) {
    if (!Selects(request.get_param_value("labelSelector"), object) || name <= after) continue;
    if (page_size_ > 0 && static_cast<int>(items.size()) == page_size_) {
      next = TextAt(items.back(), {"metadata", "name"});
      break;
    }
    items.push_back(object);
  }
  return {{"metadata", {{"resourceVersion", absl::StrCat(version_)}, {"continue", next}}},
          {"items", std::move(items)}};
}

void FakeApiServer::Watch(const httplib::Request& request, httplib::Response& response,
                          const std::string& plural) {
  const int from = std::stoi(request.get_param_value("resourceVersion"));
  if (from < forgotten_) return Answer(response, 410, "Expired", "too old resource version");
  const std::string selector = request.get_param_value("labelSelector");
  response.set_chunked_content_provider(
      "application/json", [this, plural, selector, last = from, round = watch_round_,
                           begun = forgotten_](size_t, httplib::DataSink& sink) mutable {
        std::string lines;
        bool end = false;
        {
          const Lock lock(mutex_);
          end = stopping_ || round != watch_round_ || begun != forgotten_;
          if (begun != forgotten_) {
            lines = Json{{"type", "ERROR"},
                         {"object", {{"code", 410}, {"message", "too old resource version"}}}}
                        .dump() +
                    "\n";
          }
          for (const Event& event : events_) {
            if (end || event.version <= last) continue;
            last = event.version;
            // Of other objects only the version is told.
            const bool selected = event.plural == plural && Selects(selector, event.object);
            const Json bookmark = {{"metadata", {{"resourceVersion", absl::StrCat(last)}}}};
            lines += Json{{"type", selected ? event.type : "BOOKMARK"},
                          {"object", selected ? event.object : bookmark}}
                         .dump() +
                     "\n";
          }
        }
        if (!lines.empty() && !sink.write(lines.data(), lines.size())) return false;
        if (end) {
          sink.done();
        } else {
          std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        return true;
      });
}

}  // namespace switchyard::coordinator
