#include "coordinator/kubernetes/object_cache.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(500);
constexpr absl::Duration kLongestPause = absl::Seconds(20);
// A server that ends watches at once must not be asked all the time.
constexpr absl::Duration kShortestWatch = absl::Seconds(1);

std::string NameOf(const Json& object) { return TextAt(object, {"metadata", "name"}); }

}  // namespace

ObjectCache::ObjectCache(KubernetesClient::Options options, Resource resource, std::string labels,
                         std::function<void()> changed)
    : resource_(std::move(resource)),
      labels_(std::move(labels)),
      changed_(std::move(changed)),
      client_(std::move(options)),
      thread_([this] { Run(); }) {}

ObjectCache::~ObjectCache() {
  client_.Stop();
  thread_.join();
}

ObjectCache::Objects ObjectCache::Get() const {
  absl::MutexLock lock(&mutex_);
  return objects_;
}

std::optional<absl::Status> ObjectCache::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void ObjectCache::SetStatus(absl::Status status) {
  {
    absl::MutexLock lock(&mutex_);
    if (status == status_) return;
    status_ = std::move(status);
  }
  changed_();
}

void ObjectCache::Run() {
  absl::Duration pause = kFirstPause;
  while (true) {
    absl::Status status = ListAll();
    while (status.ok()) {
      const absl::Time begun = absl::Now();
      status = WatchOn();
      if (status.ok() || absl::IsOutOfRange(status)) pause = kFirstPause;
      const absl::Duration left = kShortestWatch - (absl::Now() - begun);
      if (left > absl::ZeroDuration() && !client_.Sleep(left)) return;
    }
    if (absl::IsCancelled(status)) return;
    if (absl::IsOutOfRange(status)) {
      log::Info("kubernetes.listed_again",
                {{"resource", resource_.plural}, {"why", std::string(status.message())}});
      // What is known was right and stays so until the list is here.
    } else {
      SetStatus(std::move(status));
    }
    if (!client_.Sleep(pause)) return;
    pause = std::min(2 * pause, kLongestPause);
  }
}

absl::Status ObjectCache::ListAll() {
  SWITCHYARD_ASSIGN_OR_RETURN(ObjectList list, client_.List(resource_, labels_));
  Objects objects;
  for (Json& item : list.items) {
    const std::string name = NameOf(item);
    objects[name] = std::make_shared<const Json>(std::move(item));
  }
  version_ = list.resource_version;
  {
    absl::MutexLock lock(&mutex_);
    objects_ = std::move(objects);
    status_ = absl::OkStatus();
  }
  changed_();
  return absl::OkStatus();
}

absl::Status ObjectCache::WatchOn() {
  return client_.Watch(
      resource_, labels_, version_,
      [this](const std::string& type, const Json& object) { return Take(type, object); });
}

absl::Status ObjectCache::Take(const std::string& type, const Json& object) {
  const std::string version = TextAt(object, {"metadata", "resourceVersion"});
  if (version.empty()) return absl::UnavailableError("an event has no resourceVersion");
  version_ = version;
  if (type == "BOOKMARK") return absl::OkStatus();
  {
    absl::MutexLock lock(&mutex_);
    if (type == "DELETED") {
      objects_.erase(NameOf(object));
    } else {
      objects_[NameOf(object)] = std::make_shared<const Json>(object);
    }
  }
  changed_();
  return absl::OkStatus();
}

}  // namespace switchyard::coordinator
