// An API server in this process, over real HTTPS: keeps objects with resource versions, pages
// lists, streams watches, and has the troubles that a test asks for. Makes the pods of Jobs as the
// Job controller does; what becomes of them the test says.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/kubernetes/client.h"
#include "coordinator/kubernetes/json.h"

namespace httplib {
class SSLServer;
struct Request;
struct Response;
}  // namespace httplib

namespace switchyard::coordinator {

class FakeApiServer {
 public:
  // One answer that goes wrong.
  struct Trouble {
    std::string method;
    std::string path;  // part of path and query
    int code = 500;
    std::string retry_after;    // header; empty: none
    bool after_effect = false;  // what was asked for happens all the same
    std::string message = "trouble";
    int times = 1;
  };

  explicit FakeApiServer(const std::string& directory);
  ~FakeApiServer();

  // How a client reaches it: impatient, with the token "first" in DIRECTORY/token.
  KubernetesClient::Options ClientOptions() const;
  void WriteToken(const std::string& token) const;
  void Accept(std::set<std::string> tokens);
  void SetMinor(int minor);
  void SetPageSize(int size);
  // What the Role does not allow: "create jobs".
  void Forbid(std::set<std::string> rights);
  void Give(Trouble trouble);

  void Put(const std::string& plural, const std::string& name, Json object);
  void Remove(const std::string& plural, const std::string& name);
  bool Has(const std::string& plural, const std::string& name) const;
  Json Find(const std::string& plural, const std::string& name) const;
  std::vector<std::string> Names(const std::string& plural) const;
  // Sets status (and spec.nodeName unless `machine` is empty) of a Job's pod.
  void SetPod(const std::string& job, const Json& status, const std::string& machine = "");
  void SetJob(const std::string& job, const Json& status);
  // Pods of deleted Jobs stay, ending, until this is called with false.
  void SetLinger(bool linger);
  // Versions so far are forgotten: watches from them are answered with 410, open ones end so.
  void Forget();
  // Ends all watches in order, as servers do now and then.
  void EndWatches();

  // Requests "METHOD path?query" that contain both.
  int Count(const std::string& method, const std::string& part = "") const;
  // Bodies of those.
  std::vector<Json> Bodies(const std::string& method, const std::string& part) const;

 private:
  struct Event {
    int version;
    std::string plural, type;
    Json object;
  };
  struct Seen {
    std::string line;
    std::string body;
  };

  void Handle(const httplib::Request& request, httplib::Response& response);
  void Watch(const httplib::Request& request, httplib::Response& response,
             const std::string& plural);
  Json List(const httplib::Request& request, const std::string& plural);
  void Create(const Json& object, const std::string& plural, httplib::Response& response);
  void Delete(const Json& options, const std::string& plural, const std::string& name,
              httplib::Response& response);
  void Change(const std::string& type, const std::string& plural, const std::string& name,
              Json object);
  void RemovePodsOf(const std::string& job, bool linger);

  const std::string directory_;
  std::unique_ptr<httplib::SSLServer> server_;
  int port_ = 0;
  mutable std::recursive_mutex mutex_;
  bool stopping_ = false;
  int version_ = 100;
  int forgotten_ = 0;  // newest version that a watch cannot begin from
  int watch_round_ = 0;
  int minor_ = 20;
  int page_size_ = 0;
  int uids_ = 0;
  bool linger_ = false;
  std::set<std::string> tokens_ = {"first"};
  std::set<std::string> forbidden_;
  std::list<Trouble> troubles_;
  std::map<std::string, std::map<std::string, Json>> objects_;
  std::vector<Event> events_;
  std::vector<Seen> seen_;
  std::thread thread_;
};

}  // namespace switchyard::coordinator
