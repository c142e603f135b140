#include "coordinator/kubernetes/client.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

constexpr int kPageSize = 500;
constexpr absl::Duration kLongestBackoff = absl::Seconds(10);
constexpr absl::Duration kLongestQuiet = absl::Minutes(2);
// A watch is silent for a minute at most: there are bookmarks. The server ends it before this.
constexpr absl::Duration kWatchSlack = absl::Seconds(30);
constexpr size_t kMaxEvent = size_t{16} << 20;

// All but letters, digits and "-._~" as %XX.
std::string Escaped(absl::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' ||
        c == '~') {
      escaped.push_back(c);
    } else {
      absl::StrAppend(&escaped, "%", absl::BytesToHexString(absl::string_view(&c, 1)));
    }
  }
  return escaped;
}

Json Parsed(const std::string& text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

// "20+" is 20: providers append letters.
int LeadingNumber(const std::string& text, int otherwise) {
  const size_t end = text.find_first_not_of("0123456789");
  int number = 0;
  return absl::SimpleAtoi(text.substr(0, end), &number) ? number : otherwise;
}

bool IsTransient(int status) { return status == 429 || status >= 500; }

}  // namespace

std::string Resource::Path(const std::string& name) const {
  return absl::StrCat(group.empty() ? "/api/v1" : absl::StrCat("/apis/", group, "/v1"),
                      "/namespaces/", namespace_, "/", plural, name.empty() ? "" : "/", name);
}

KubernetesClient::KubernetesClient(Options options)
    : options_(std::move(options)),
      transport_(options_.access.ca_file),
      token_(options_.access.token_file),
      tokens_(2 * options_.requests_per_second),
      refilled_(absl::Now()) {}

bool KubernetesClient::Sleep(absl::Duration duration) {
  return transport_.Sleep(absl::ToChronoMilliseconds(duration));
}

bool KubernetesClient::WaitForTurn() {
  // Also of the next call when this one has given up.
  if (const absl::Duration quiet = quiet_until_ - absl::Now(); quiet > absl::ZeroDuration()) {
    if (!Sleep(quiet)) return false;
  }
  const absl::Time now = absl::Now();
  const double rate = options_.requests_per_second;
  tokens_ =
      std::min(2 * rate, tokens_ + rate * std::max(0.0, absl::ToDoubleSeconds(now - refilled_)));
  refilled_ = now;
  tokens_ -= 1;
  return tokens_ >= 0 || Sleep(absl::Seconds(-tokens_ / rate));
}

absl::StatusOr<HttpsResponse> KubernetesClient::SendOnce(Call& call) {
  SWITCHYARD_ASSIGN_OR_RETURN(call.request.token, token_.Get(absl::Now()));
  if (!WaitForTurn()) return absl::CancelledError("the coordinator is ending");
  absl::StatusOr<HttpsResponse> response = transport_.Send(call.request);
  if (response.ok() && IsTransient(response->status) && response->retry_after_seconds > 0) {
    quiet_until_ =
        absl::Now() + std::min(absl::Seconds(response->retry_after_seconds), kLongestQuiet);
  }
  return response;
}

absl::Status KubernetesClient::ErrorOf(const Call& call, const HttpsResponse& response) const {
  const Json body = Parsed(response.body);
  std::string said = TextAt(body, {"message"});
  if (said.empty()) said = response.body.substr(0, 200);
  std::string message =
      absl::StrCat(call.request.method, " ", call.path, " answered ", response.status, ": ", said);
  switch (response.status) {
    case 401:
      return absl::UnauthenticatedError(absl::StrCat(message, "; the token in ", token_.path(),
                                                     " is not accepted: is it of this cluster, not "
                                                     "expired, its service account not deleted?"));
    case 403:
      if (call.resource != nullptr) {
        absl::StrAppend(
            &message, "; if that is a right that is missing: the coordinator's Role in namespace ",
            call.resource->namespace_, " must allow \"", call.verb, "\" on \"",
            call.resource->plural, "\" of API group \"", call.resource->group, "\"");
      }
      return absl::PermissionDeniedError(message);
    case 404:
      return absl::NotFoundError(message);
    case 409:
      return TextAt(body, {"reason"}) == "AlreadyExists" ? absl::AlreadyExistsError(message)
                                                         : absl::AbortedError(message);
    case 410:
      return absl::OutOfRangeError(message);
    default:
      return IsTransient(response.status) ? absl::UnavailableError(message)
                                          : absl::InvalidArgumentError(message);
  }
}

absl::StatusOr<Json> KubernetesClient::Send(Call call) {
  absl::BitGen random;
  call.request.url = absl::StrCat(options_.access.url, call.path);
  call.request.timeout = absl::ToChronoMilliseconds(options_.request_timeout);
  const absl::Time until = absl::Now() + options_.patience;
  absl::Duration backoff = options_.first_backoff;
  bool token_was_new = false;
  while (true) {
    const absl::StatusOr<HttpsResponse> response = SendOnce(call);
    absl::Status error;
    absl::Duration pause = backoff * absl::Uniform(random, 0.5, 1.0);
    if (!response.ok()) {
      error = response.status();
      if (!absl::IsUnavailable(error) && !absl::IsDeadlineExceeded(error)) return error;
    } else if (response->status >= 200 && response->status < 300) {
      Json body = Parsed(response->body);
      if (body.is_object()) return body;
      return absl::UnavailableError(absl::StrCat(call.request.method, " ", call.path,
                                                 " was not answered with a JSON object: is ",
                                                 options_.access.url, " an API server?"));
    } else {
      error = ErrorOf(call, *response);
      if (response->status == 401 && !token_was_new) {
        // It may have been replaced since it was read.
        token_.Expire();
        token_was_new = true;
        continue;
      }
      if (!IsTransient(response->status)) return error;
      pause = std::max(pause, quiet_until_ - absl::Now());
    }
    if (absl::Now() + pause > until) return error;
    if (!Sleep(pause)) return absl::CancelledError("the coordinator is ending");
    backoff = std::min(2 * backoff, kLongestBackoff);
  }
}

absl::StatusOr<Json> KubernetesClient::Get(const Resource& resource, const std::string& name) {
  return Send({"get", resource.Path(name), &resource, {}});
}

absl::StatusOr<Json> KubernetesClient::Create(const Resource& resource, const Json& object) {
  SWITCHYARD_ASSIGN_OR_RETURN(const ServerVersion version, Version());
  Call call{"create", resource.Path(), &resource, {}};
  if (version.AtLeast(25)) call.path += "?fieldValidation=Strict";
  call.request.method = "POST";
  call.request.body = object.dump(-1, ' ', false, Json::error_handler_t::replace);
  return Send(std::move(call));
}

absl::Status KubernetesClient::Delete(const Resource& resource, const std::string& name,
                                      const std::string& uid) {
  Call call{"delete", resource.Path(name), &resource, {}};
  call.request.method = "DELETE";
  call.request.body = Json{
      {"apiVersion", "v1"},
      {"kind", "DeleteOptions"},
      {"propagationPolicy", "Foreground"},
      {"preconditions",
       {{"uid", uid}}}}.dump();
  return Send(std::move(call)).status();
}

absl::StatusOr<ObjectList> KubernetesClient::List(const Resource& resource,
                                                  const std::string& labels) {
  ObjectList list;
  std::string next;
  do {
    std::string path =
        absl::StrCat(resource.Path(), "?labelSelector=", Escaped(labels), "&limit=", kPageSize);
    if (!next.empty()) absl::StrAppend(&path, "&continue=", Escaped(next));
    SWITCHYARD_ASSIGN_OR_RETURN(Json page, Send({"list", std::move(path), &resource, {}}));
    for (const Json& item : ListAt(page, {"items"})) list.items.push_back(item);
    list.resource_version = TextAt(page, {"metadata", "resourceVersion"});
    next = TextAt(page, {"metadata", "continue"});
  } while (!next.empty());
  return list;
}

absl::Status KubernetesClient::Watch(
    const Resource& resource, const std::string& labels, const std::string& resource_version,
    const std::function<absl::Status(const std::string&, const Json&)>& on_event) {
  Call call{"watch",
            absl::StrCat(resource.Path(), "?watch=true&allowWatchBookmarks=true&labelSelector=",
                         Escaped(labels), "&resourceVersion=", Escaped(resource_version),
                         "&timeoutSeconds=", absl::ToInt64Seconds(options_.watch_timeout)),
            &resource,
            {}};
  call.request.url = absl::StrCat(options_.access.url, call.path);
  call.request.timeout = absl::ToChronoMilliseconds(options_.watch_timeout + kWatchSlack);
  absl::Status ended;
  std::string buffer;
  call.request.on_bytes = [&](absl::string_view bytes) {
    buffer.append(bytes.data(), bytes.size());
    size_t begin = 0;
    for (size_t end = 0; ended.ok() && (end = buffer.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      const Json event = Parsed(buffer.substr(begin, end - begin));
      const Json& object = At(event, {"object"});
      const std::string type = TextAt(event, {"type"});
      if (type == "ERROR") {
        const std::string said = TextAt(object, {"message"});
        ended = NumberAt(object, {"code"}) == 410 ? absl::OutOfRangeError(said)
                                                  : absl::UnavailableError(said);
      } else if (type.empty()) {
        ended = absl::UnavailableError(absl::StrCat("a line of ", call.path, " is no event"));
      } else {
        ended = on_event(type, object);
      }
    }
    buffer.erase(0, begin);
    if (ended.ok() && buffer.size() > kMaxEvent)
      ended = absl::UnavailableError(absl::StrCat("an event of ", call.path, " is too long"));
    return ended.ok();
  };
  absl::StatusOr<HttpsResponse> response = SendOnce(call);
  if (response.ok() && response->status == 401) {
    token_.Expire();
    response = SendOnce(call);
  }
  if (!ended.ok()) return ended;
  if (!response.ok()) return response.status();
  return response->status == 200 ? absl::OkStatus() : ErrorOf(call, *response);
}

absl::StatusOr<ServerVersion> KubernetesClient::Version() {
  if (version_) return *version_;
  const absl::StatusOr<Json> answer = Send({"get", "/version", nullptr, {}});
  // Where it is forbidden, nothing newer than the oldest is used.
  if (!answer.ok() && !absl::IsPermissionDenied(answer.status())) return answer.status();
  ServerVersion version;
  if (answer.ok()) {
    version.major = LeadingNumber(TextAt(*answer, {"major"}), version.major);
    version.minor = LeadingNumber(TextAt(*answer, {"minor"}), version.minor);
  }
  version_ = version;
  return version;
}

absl::StatusOr<std::vector<std::string>> KubernetesClient::MissingRights(
    const std::vector<std::pair<std::string, Resource>>& verbs) {
  std::vector<std::string> missing;
  for (const auto& [verb, resource] : verbs) {
    Call call{"create", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", nullptr, {}};
    call.request.method = "POST";
    call.request.body = Json{{"apiVersion", "authorization.k8s.io/v1"},
                             {"kind", "SelfSubjectAccessReview"},
                             {"spec",
                              {{"resourceAttributes",
                                {{"namespace", resource.namespace_},
                                 {"verb", verb},
                                 {"group", resource.group},
                                 {"resource", resource.plural}}}}}}
                            .dump();
    SWITCHYARD_ASSIGN_OR_RETURN(const Json answer, Send(std::move(call)));
    const Json& allowed = At(answer, {"status", "allowed"});
    if (!allowed.is_boolean() || !allowed.get<bool>()) {
      missing.push_back(absl::StrCat(verb, " ", resource.plural, resource.group.empty() ? "" : ".",
                                     resource.group));
    }
  }
  return missing;
}

}  // namespace switchyard::coordinator
