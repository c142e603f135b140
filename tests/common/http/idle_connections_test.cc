// Connections that say nothing, or little, keep nobody from being answered.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/http/http_client.h"
#include "common/http/http_server.h"
#include "common/security/init.h"
#include "common/unique_fd.h"

namespace switchyard::http {
namespace {

using std::chrono::steady_clock;

constexpr int kIdle = 200;
constexpr int kSlow = 50;
// Longer than a connection may take to send its request.
constexpr std::chrono::seconds kTime{8};

UniqueFd Connect(int port, const char* from) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  inet_pton(AF_INET, from, &address.sin_addr);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

// Whether the other end has closed.
bool IsClosed(const UniqueFd& fd) {
  char byte;
  const ssize_t n = recv(fd.get(), &byte, 1, MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN);
}

// 200 connections that send nothing and 50 that send a byte a second.
class Crowd {
 public:
  // `again`: whoever loses a connection makes another.
  Crowd(int port, bool again) {
    for (int i = 0; i < kIdle + kSlow; ++i) fds_.push_back(Connect(port, "127.0.0.1"));
    thread_ = std::thread([this, port, again] {
      const std::string request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: aaaaaaaaaaaaaaaa";
      for (int tick = 0; !stop_; ++tick) {
        for (int i = 0; i < kSlow && tick % 10 == 0; ++i) {
          const char byte = request[static_cast<size_t>(tick / 10) % request.size()];
          send(fds_[static_cast<size_t>(i)].get(), &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        for (UniqueFd& fd : fds_) {
          if (again && IsClosed(fd)) fd = Connect(port, "127.0.0.1");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
  }
  ~Crowd() {
    stop_ = true;
    thread_.join();
  }
  int Closed() const { return static_cast<int>(std::count_if(fds_.begin(), fds_.end(), IsClosed)); }

 private:
  std::vector<UniqueFd> fds_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

std::unique_ptr<Server> Serve(std::optional<security::CertificateFiles> tls) {
  Options options;
  options.address = "127.0.0.1:0";
  options.tls = std::move(tls);
  auto server = Server::Bind(std::move(options));
  EXPECT_TRUE(server.ok()) << server.status();
  (*server)->Handle("/healthz", [](const Request&) { return TextResponse(200, "ok\n"); });
  (*server)->Serve();
  return *std::move(server);
}

// Asks again and again, beside the crowd; http::Get waits two seconds at most.
void ExpectAnswered(const std::string& address, const std::string& authority) {
  int answered = 0;
  for (const auto end = steady_clock::now() + kTime; steady_clock::now() < end; ++answered) {
    const auto answer = Get(address, "/healthz", authority);
    ASSERT_TRUE(answer.ok()) << answer.status() << " after " << answered << " answers";
    EXPECT_EQ(answer->body, "ok\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_GT(answered, 3);
}

TEST(IdleConnections, OfTheSameAddressKeepNobodyOut) {
  const auto server = Serve(std::nullopt);
  const Crowd crowd(server->port(), /*again=*/false);
  ExpectAnswered(server->address(), "");
  EXPECT_EQ(crowd.Closed(), kIdle + kSlow) << "their time is over";
}

TEST(IdleConnections, KeepNobodyOutByTlsEither) {
  const std::string directory = testing::TempDir() + absl::StrCat("/idle-", getpid());
  const security::SecurityDirectory files{directory};
  ASSERT_TRUE(
      security::InitSecurityDirectory(files, {"localhost", "127.0.0.1"}, {}, 1, absl::Now()).ok());
  const auto server = Serve(security::CertificateFiles::In(directory));
  const Crowd crowd(server->port(), /*again=*/false);
  ExpectAnswered(absl::StrCat("localhost:", server->port()), files.Authority());
  EXPECT_EQ(crowd.Closed(), kIdle + kSlow) << "a handshake has no more time than a request";
}

TEST(IdleConnections, ThatComeBackAtOnceTakeNoRoomOfOtherAddresses) {
  const auto server = Serve(std::nullopt);
  // Slow itself: it would be the oldest long before its request is there.
  const UniqueFd other = Connect(server->port(), "127.0.0.2");
  const Crowd crowd(server->port(), /*again=*/true);
  for (const char byte : std::string("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")) {
    ASSERT_EQ(send(other.get(), &byte, 1, MSG_NOSIGNAL), 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::string answer(15, ' ');
  EXPECT_EQ(recv(other.get(), answer.data(), answer.size(), MSG_WAITALL), 15);
  EXPECT_EQ(answer, "HTTP/1.1 200 OK");
}

}  // namespace
}  // namespace switchyard::http
