#include "common/http/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/unique_fd.h"

namespace switchyard::http {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

UniqueFd Connect(int port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

std::string ReadAll(int fd) {
  std::string answer;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof buffer)) > 0;) answer.append(buffer, n);
  return answer;
}

// Everything that comes back until the server closes.
std::string Exchange(int port, const std::string& request) {
  const UniqueFd fd = Connect(port);
  for (size_t sent = 0; sent < request.size();) {
    const ssize_t n = send(fd.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) break;
    sent += static_cast<size_t>(n);
  }
  return ReadAll(fd.get());
}

std::string Get(int port, const std::string& target, const std::string& headers = "") {
  return Exchange(port, absl::StrCat("GET ", target, " HTTP/1.1\r\nHost: x\r\n", headers, "\r\n"));
}

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    Options options;
    options.address = "127.0.0.1:0";
    options.authorize = [](const Request& request) -> std::unique_ptr<Response> {
      if (request.path != "/closed") return nullptr;
      return std::make_unique<Response>(TextResponse(401, "who are you?\n"));
    };
    auto bound = Server::Bind(std::move(options));
    EXPECT_TRUE(bound.ok()) << bound.status();
    server = *std::move(bound);
    server->Handle("/exact", [](const Request& request) {
      const auto name = request.query.find("name");
      return TextResponse(
          200, absl::StrCat("hello ", name == request.query.end() ? "nobody" : name->second));
    });
    server->Handle("/below/", [](const Request& request) {
      return TextResponse(200, absl::StrCat("below: ", request.path));
    });
    server->Handle("/throws",
                   [](const Request&) -> Response { throw std::runtime_error("secret"); });
    server->Handle("/closed", [](const Request&) { return TextResponse(200, "inside"); });
    server->Serve();
    port = server->port();
  }

  std::unique_ptr<Server> server;
  int port = 0;
};

TEST_F(HttpServerTest, AnswersByExactPathAndByTheLongestPathAbove) {
  EXPECT_THAT(Get(port, "/exact?name=a%20b&name=c"),
              AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\r\n\r\nhello a b"),
                    HasSubstr("X-Content-Type-Options: nosniff"), HasSubstr("no-store")));
  EXPECT_THAT(Get(port, "/below/a/b"), HasSubstr("below: /below/a/b"));
  EXPECT_THAT(Get(port, "/exact/more"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Get(port, "/"), StartsWith("HTTP/1.1 404"));
}

TEST_F(HttpServerTest, AnswersGetAndHeadOnly) {
  EXPECT_THAT(Exchange(port, "HEAD /exact HTTP/1.1\r\nHost: x\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200"), Not(HasSubstr("hello"))));
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "PATCH"}) {
    EXPECT_THAT(Exchange(port, absl::StrCat(method,
                                            " /exact HTTP/1.1\r\nHost: x\r\n"
                                            "Content-Length: 0\r\n\r\n")),
                AllOf(HasSubstr(" 405 "), HasSubstr("Allow: GET, HEAD")))
        << method;
  }
}

TEST_F(HttpServerTest, AHandlersExceptionIsFiveHundredWithoutItsText) {
  EXPECT_THAT(Get(port, "/throws"), AllOf(StartsWith("HTTP/1.1 500"), Not(HasSubstr("secret"))));
}

TEST_F(HttpServerTest, WhoIsRefusedNeverReachesTheHandler) {
  EXPECT_THAT(Get(port, "/closed"), AllOf(StartsWith("HTTP/1.1 401"), Not(HasSubstr("inside"))));
}

TEST(HttpHostTest, WithoutTokensOnlyAddressesAndLocalhostNameTheServer) {
  Options options;
  options.address = "127.0.0.1:0";
  auto server = Server::Bind(std::move(options));
  ASSERT_TRUE(server.ok()) << server.status();
  (*server)->Handle("/page", [](const Request&) { return TextResponse(200, "page"); });
  (*server)->Serve();
  const auto ask = [&](const std::string& host) {
    return Exchange((*server)->port(),
                    absl::StrCat("GET /page HTTP/1.1\r\nHost: ", host, "\r\n\r\n"));
  };
  for (const char* host : {"127.0.0.1:80", "localhost", "localhost:9464", "[::1]:80", "10.0.0.7"})
    EXPECT_THAT(ask(host), StartsWith("HTTP/1.1 200")) << host;
  for (const char* host :
       {"attacker.example", "attacker.example:9464", "127.0.0.1.example", "::1:x"})
    EXPECT_THAT(ask(host), StartsWith("HTTP/1.1 421")) << host;
}

// Each of these made some server fall over or grow without bound.
TEST_F(HttpServerTest, HostileRequestsAreRefusedAndTheNextIsServed) {
  const std::vector<std::string> requests = {
      "\r\n\r\n",
      std::string("GET /\0exact HTTP/1.1\r\n\r\n", 24),
      absl::StrCat("GET /", std::string(100000, 'a'), " HTTP/1.1\r\n\r\n"),
      absl::StrCat("GET /exact HTTP/1.1\r\nX: ", std::string(100000, 'a'), "\r\n\r\n"),
      absl::StrCat("GET /exact HTTP/1.1\r\nRange: bytes=", std::string(8000, '1'), "\r\n\r\n"),
      absl::StrCat("GET /exact HTTP/1.1\r\nRange: bytes=0-1", std::string(7000, ','), "\r\n\r\n"),
      "POST /exact HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc",
      "POST /exact HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
      "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  };
  for (const std::string& request : requests) {
    EXPECT_THAT(Exchange(port, request), Not(StartsWith("HTTP/1.1 200"))) << request.substr(0, 60);
    ASSERT_THAT(Get(port, "/exact"), StartsWith("HTTP/1.1 200")) << request.substr(0, 60);
  }
  // Headers without end: closed when their bytes are used up.
  std::string headers = "GET /exact HTTP/1.1\r\n";
  while (headers.size() < 1000000) headers += "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
  EXPECT_THAT(Exchange(port, headers), Not(StartsWith("HTTP/1.1 200")));
  EXPECT_THAT(Get(port, "/exact"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, ASilentClientLosesItsConnectionInSeconds) {
  const auto begin = std::chrono::steady_clock::now();
  const UniqueFd silent = Connect(port);
  EXPECT_EQ(ReadAll(silent.get()), "");
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_GT(took, std::chrono::seconds(4));
  EXPECT_LT(took, std::chrono::seconds(15));
}

TEST_F(HttpServerTest, StopsAtOnceWhileAClientHoldsAConnection) {
  const UniqueFd silent = Connect(port);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto begin = std::chrono::steady_clock::now();
  server.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(HttpServerTest, ATakenPortIsAClearError) {
  Options options;
  options.address = server->address();
  EXPECT_EQ(server->address(), absl::StrCat("127.0.0.1:", port));
  const auto second = Server::Bind(std::move(options));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("--metrics ", server->address(), ": the port is taken")));
}

TEST(HttpAddressTest, RefusesAnAddressThatIsNotHostAndPort) {
  for (const char* address :
       {"9464", "host:9464", "127.0.0.1:99999", "127.0.0.1:", ":1", "1.2.3:4", "[::1:4", "[]:4"}) {
    Options options;
    options.address = address;
    EXPECT_EQ(Server::Bind(std::move(options)).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
}

}  // namespace
}  // namespace switchyard::http
