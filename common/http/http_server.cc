#include "common/http/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <set>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/http/connection.h"
#include "common/log.h"

namespace switchyard::http {
namespace {

// Requests are answered in milliseconds; a slow client holds a thread for its time limit at most.
constexpr int kThreads = 8;
// Accepted connections that wait for a thread; more are closed unanswered.
constexpr size_t kMaxWaiting = 64;

// True on the accepting thread while it turns a connection away.
// Aligned as what follows it in memory: mold 1.10 makes a program that cannot be started where
// thread-local bytes end just before a page.
alignas(8) thread_local bool turning_away = false;

class BoundedPool final : public httplib::TaskQueue {
 public:
  BoundedPool() {
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Run(); });
  }

  void enqueue(std::function<void()> task) override {
    {
      absl::MutexLock lock(&mutex_);
      if (waiting_.size() < kMaxWaiting) {
        waiting_.push_back(std::move(task));
        return;
      }
    }
    turning_away = true;
    task();
    turning_away = false;
  }

  void shutdown() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void Run() {
    while (true) {
      std::function<void()> task;
      {
        const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
          return stopping_ || !waiting_.empty();
        };
        absl::MutexLock lock(&mutex_, absl::Condition(&ready));
        if (waiting_.empty()) return;
        task = std::move(waiting_.front());
        waiting_.pop_front();
      }
      task();
    }
  }

  absl::Mutex mutex_;
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// cpp-httplib with our connections.
class LimitedServer final : public httplib::Server {
 public:
  void UseTls(std::unique_ptr<TlsContext> tls) { tls_ = std::move(tls); }

  // The library's backlog of 5 makes clients that come together wait for seconds.
  void WidenBacklog() { ::listen(svr_sock_, 128); }

  // Ends what is open and turns away what comes.
  void EndConnections() {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }

 private:
  bool process_and_close_socket(socket_t fd) override {
    if (!turning_away && Enter(fd)) {
      if (tls_ != nullptr) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
      Connection connection(fd, {}, tls_ == nullptr ? nullptr : tls_->Start(fd));
      bool closed = false;
      process_request(connection, /*close_connection=*/true, closed, [](httplib::Request& request) {
        // Brotli, which the library prefers and runs at its slowest, is not worth its time.
        const bool gzip = absl::StrContains(request.get_header_value("Accept-Encoding"), "gzip");
        request.headers.erase("Accept-Encoding");
        if (gzip) request.set_header("Accept-Encoding", "gzip");
      });
      Leave(fd);
    }
    ::shutdown(fd, SHUT_RDWR);
    ::close(fd);
    return true;
  }

  bool Enter(int fd) {
    absl::MutexLock lock(&mutex_);
    if (ending_) return false;
    open_.insert(fd);
    return true;
  }
  void Leave(int fd) {
    absl::MutexLock lock(&mutex_);
    open_.erase(fd);
  }

  std::unique_ptr<TlsContext> tls_;  // null: plain text
  absl::Mutex mutex_;
  std::set<int> open_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
};

struct HostPort {
  std::string host;  // as in the address
  std::string bare;  // without brackets
  int port = 0;
};

absl::StatusOr<HostPort> ReadAddress(const Options& options) {
  const absl::Status bad = absl::InvalidArgumentError(
      absl::StrCat(options.flag, " \"", options.address,
                   "\" is not HOST:PORT with a numeric host, for example 127.0.0.1:9464"));
  const size_t colon = options.address.rfind(':');
  if (colon == std::string::npos) return bad;
  HostPort result;
  result.host = options.address.substr(0, colon);
  if (result.host == "localhost") result.host = "127.0.0.1";
  if (!absl::SimpleAtoi(options.address.substr(colon + 1), &result.port) || result.port < 0 ||
      result.port > 65535) {
    return bad;
  }
  result.bare = result.host;
  in6_addr unused;
  if (inet_pton(AF_INET, result.bare.c_str(), &unused) == 1) return result;
  if (result.host.size() < 2 || result.host.front() != '[' || result.host.back() != ']') return bad;
  result.bare = result.host.substr(1, result.host.size() - 2);
  if (inet_pton(AF_INET6, result.bare.c_str(), &unused) != 1) return bad;
  return result;
}

// Of a Host header: "127.0.0.1:80", "[::1]", "localhost:80", or none.
bool IsNumericOrLocal(const std::string& header) {
  const size_t bracket = header.rfind(']');
  const size_t colon = header.rfind(':');
  const bool has_port =
      colon != std::string::npos &&
      (bracket == std::string::npos ? header.find(':') == colon : colon > bracket);
  std::string host = has_port ? header.substr(0, colon) : header;
  if (host.empty() || host == "localhost") return true;
  in6_addr unused;
  if (inet_pton(AF_INET, host.c_str(), &unused) == 1) return true;
  if (host.size() < 2 || host.front() != '[' || host.back() != ']') return false;
  host = host.substr(1, host.size() - 2);
  return inet_pton(AF_INET6, host.c_str(), &unused) == 1;
}

Request ToRequest(const httplib::Request& from) {
  Request request;
  request.path = from.path;
  for (const auto& [name, value] : from.params) request.query.try_emplace(name, value);
  request.authorization = from.get_header_value("Authorization");
  request.if_none_match = from.get_header_value("If-None-Match");
  request.peer = from.remote_addr;
  return request;
}

void Send(const Response& from, httplib::Response& to) {
  to.status = from.status;
  to.set_header("X-Content-Type-Options", "nosniff");
  to.set_header("Cache-Control", "no-store");
  for (const auto& [name, value] : from.headers) {
    to.headers.erase(name);
    to.set_header(name, value);
  }
  if (from.status != 304) to.set_content(from.body, from.content_type);
}

}  // namespace

Response TextResponse(int status, std::string text) {
  Response response;
  response.status = status;
  response.body = std::move(text);
  return response;
}

struct Server::Impl {
  Options options;
  LimitedServer server;
  std::map<std::string, Handler> handlers;
  std::string address;
  int port = 0;
  std::thread thread;

  // The longest path that takes `path`, null without one.
  const Handler* Find(const std::string& path) const {
    if (const auto exact = handlers.find(path); exact != handlers.end()) return &exact->second;
    for (std::string above = path; !above.empty();) {
      above.resize(above.rfind('/', above.size() - 2) + 1);
      const auto below = handlers.find(above);
      if (below != handlers.end()) return &below->second;
      if (above.size() <= 1) break;
    }
    return nullptr;
  }

  Response Answer(const httplib::Request& from) const {
    if (from.method != "GET" && from.method != "HEAD") {
      Response response = TextResponse(405, "Only GET and HEAD are answered here.\n");
      response.headers.emplace_back("Allow", "GET, HEAD");
      return response;
    }
    const Request request = ToRequest(from);
    if (!options.authorize && !IsNumericOrLocal(from.get_header_value("Host"))) {
      return TextResponse(421, "Name this server by its address or as localhost.\n");
    }
    if (options.authorize && request.path != "/healthz") {
      if (const auto refusal = options.authorize(request); refusal != nullptr) return *refusal;
    }
    const Handler* handler = Find(request.path);
    if (handler == nullptr) return TextResponse(404, "There is nothing at this address.\n");
    return (*handler)(request);
  }
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Bind(Options options) {
  const absl::StatusOr<HostPort> address = ReadAddress(options);
  if (!address.ok()) return address.status();
  auto impl = std::make_unique<Impl>();
  LimitedServer& server = impl->server;
  if (options.tls) {
    auto tls = TlsContext::Create(*options.tls, options.require_client_certificate);
    if (!tls.ok()) return tls.status();
    server.UseTls(*std::move(tls));
  }
  // Not the library's SO_REUSEPORT, with which two programs would share a port unnoticed.
  server.set_socket_options([](socket_t fd) {
    const int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server.set_payload_max_length(1024);
  server.new_task_queue = [] { return new BoundedPool(); };
  // All routing is ours: the library's is by regular expressions over what strangers send.
  server.set_pre_routing_handler(
      [impl = impl.get()](const httplib::Request& request, httplib::Response& response) {
        Send(impl->Answer(request), response);
        return httplib::Server::HandlerResponse::Handled;
      });
  server.set_exception_handler(
      [](const httplib::Request& request, httplib::Response& response, std::exception_ptr) {
        log::Error("http.handler_failed", {{"path", request.path}});
        Send(TextResponse(500, "The request could not be answered.\n"), response);
      });
  const bool chosen = address->port == 0;
  impl->port = chosen ? server.bind_to_any_port(address->bare)
                      : (server.bind_to_port(address->bare, address->port) ? address->port : -1);
  if (impl->port <= 0) {
    return absl::UnavailableError(
        absl::StrCat(options.flag, " ", options.address,
                     ": the port is taken or the address is not of this machine; give another "
                     "HOST:PORT (port 0 lets the system choose)"));
  }
  server.WidenBacklog();
  impl->address = absl::StrCat(address->host, ":", impl->port);
  impl->options = std::move(options);
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::~Server() {
  if (!impl_->thread.joinable()) return;
  impl_->server.EndConnections();
  impl_->server.stop();
  impl_->thread.join();
}

void Server::Handle(const std::string& path, Handler handler) {
  impl_->handlers[path] = std::move(handler);
}

void Server::Authorize(std::function<std::unique_ptr<Response>(const Request&)> authorize) {
  impl_->options.authorize = std::move(authorize);
}

void Server::Serve() {
  impl_->thread = std::thread([this] { impl_->server.listen_after_bind(); });
  // Until then stop() would do nothing, and the thread never end.
  while (!impl_->server.is_running()) std::this_thread::yield();
}

const std::string& Server::address() const { return impl_->address; }
int Server::port() const { return impl_->port; }

}  // namespace switchyard::http
