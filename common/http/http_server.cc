#include "common/http/http_server.h"

#include <arpa/inet.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/http/connection_loop.h"
#include "common/log.h"
#include "common/unique_fd.h"

namespace switchyard::http {
namespace {

// A request's head to read, and the answer that is written.
class MemoryStream final : public httplib::Stream {
 public:
  MemoryStream(const std::string& request, const std::string& peer)
      : request_(request), peer_(peer) {}

  bool is_readable() const override { return read_ < request_.size(); }
  bool is_writable() const override { return true; }
  ssize_t read(char* to, size_t size) override {
    const size_t count = request_.copy(to, size, read_);
    read_ += count;
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* from, size_t size) override {
    answer_.append(from, size);
    return static_cast<ssize_t>(size);
  }
  using httplib::Stream::write;
  void get_remote_ip_and_port(std::string& ip, int&) const override { ip = peer_; }
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return INVALID_SOCKET; }

  std::string TakeAnswer() { return std::move(answer_); }

 private:
  const std::string& request_;
  const std::string& peer_;
  size_t read_ = 0;
  std::string answer_;
};

// cpp-httplib without its sockets and threads: the syntax of HTTP alone.
class Protocol final : public httplib::Server {
 public:
  std::string Answer(const std::string& request, const std::string& peer) {
    MemoryStream stream(request, peer);
    bool closed = false;
    process_request(stream, /*close_connection=*/true, closed, [](httplib::Request& parsed) {
      // Brotli, which the library prefers and runs at its slowest, is not worth its time.
      const bool gzip = absl::StrContains(parsed.get_header_value("Accept-Encoding"), "gzip");
      parsed.headers.erase("Accept-Encoding");
      if (gzip) parsed.set_header("Accept-Encoding", "gzip");
    });
    return stream.TakeAnswer();
  }
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

// Listens at `address` and sets its port to the one that is open; invalid when it cannot.
UniqueFd Listen(HostPort& address) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_in);
  auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
  if (inet_pton(AF_INET, address.bare.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
  } else {
    inet_pton(AF_INET6, address.bare.c_str(), &v6.sin6_addr);
    v6.sin6_family = AF_INET6;
    size = sizeof(sockaddr_in6);
  }
  v4.sin_port = htons(static_cast<uint16_t>(address.port));  // at the same place in both
  auto* const name = reinterpret_cast<sockaddr*>(&storage);
  UniqueFd fd(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int yes = 1;
  const int no = 0;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (storage.ss_family == AF_INET6)  // [::] serves both
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
  if (::bind(fd.get(), name, size) != 0 || ::listen(fd.get(), 128) != 0 ||
      ::getsockname(fd.get(), name, &size) != 0) {
    return UniqueFd();
  }
  address.port = ntohs(v4.sin_port);
  return fd;
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
  Protocol protocol;
  std::map<std::string, Handler> handlers;
  std::string address;
  int port = 0;
  UniqueFd listener;                // until Serve
  std::unique_ptr<TlsContext> tls;  // until Serve; null for plain text
  std::unique_ptr<ConnectionLoop> loop;

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
  absl::StatusOr<HostPort> address = ReadAddress(options);
  if (!address.ok()) return address.status();
  auto impl = std::make_unique<Impl>();
  if (options.tls) {
    auto tls = TlsContext::Create(*options.tls, options.require_client_certificate);
    if (!tls.ok()) return tls.status();
    impl->tls = *std::move(tls);
  }
  Protocol& protocol = impl->protocol;
  protocol.set_payload_max_length(1024);
  // All routing is ours: the library's is by regular expressions over what strangers send.
  protocol.set_pre_routing_handler(
      [impl = impl.get()](const httplib::Request& request, httplib::Response& response) {
        Send(impl->Answer(request), response);
        return httplib::Server::HandlerResponse::Handled;
      });
  protocol.set_exception_handler(
      [](const httplib::Request& request, httplib::Response& response, std::exception_ptr) {
        log::Error("http.handler_failed", {{"path", request.path}});
        Send(TextResponse(500, "The request could not be answered.\n"), response);
      });
  impl->listener = Listen(*address);
  if (!impl->listener.valid()) {
    return absl::UnavailableError(
        absl::StrCat(options.flag, " ", options.address,
                     ": the port is taken or the address is not of this machine; give another "
                     "HOST:PORT (port 0 lets the system choose)"));
  }
  impl->port = address->port;
  impl->address = absl::StrCat(address->host, ":", impl->port);
  impl->options = std::move(options);
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::~Server() = default;

void Server::Handle(const std::string& path, Handler handler) {
  impl_->handlers[path] = std::move(handler);
}

void Server::Authorize(std::function<std::unique_ptr<Response>(const Request&)> authorize) {
  impl_->options.authorize = std::move(authorize);
}

void Server::Serve() {
  impl_->loop = std::make_unique<ConnectionLoop>(
      std::move(impl_->listener), std::move(impl_->tls),
      [impl = impl_.get()](const std::string& request, const std::string& peer) {
        return impl->protocol.Answer(request, peer);
      });
}

const std::string& Server::address() const { return impl_->address; }
int Server::port() const { return impl_->port; }

}  // namespace switchyard::http
