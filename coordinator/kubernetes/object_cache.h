// Objects of one kind as the API server has them: listed once, then kept by a watch.
//
// A thread of its own lists, watches from there, goes on where a watch ended, and lists anew when
// the server has forgotten so old a version or anything else went wrong. Knows nothing of what the
// objects mean.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "coordinator/kubernetes/client.h"

namespace switchyard::coordinator {

class ObjectCache {
 public:
  using Objects = std::map<std::string, std::shared_ptr<const Json>>;  // by name

  // `labels` is a label selector. `changed` is called on the cache's thread after every change,
  // also of status().
  ObjectCache(KubernetesClient::Options options, Resource resource, std::string labels,
              std::function<void()> changed);
  ~ObjectCache();

  // As of the newest event. Only complete when status() is OK, then and now.
  Objects Get() const;
  // OK once a list is complete and while it is kept up to date; else why it is not; nullopt before
  // the first list has ended either way.
  std::optional<absl::Status> status() const;

 private:
  void Run();
  absl::Status ListAll();
  absl::Status WatchOn();
  absl::Status Take(const std::string& type, const Json& object);
  void SetStatus(absl::Status status);

  const Resource resource_;
  const std::string labels_;
  const std::function<void()> changed_;
  KubernetesClient client_;
  std::string version_;  // of the thread: the newest that it has seen

  mutable absl::Mutex mutex_;
  Objects objects_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace switchyard::coordinator
