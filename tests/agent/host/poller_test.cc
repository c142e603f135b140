#include "worker/agent/host/poller.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>

namespace switchyard::agent {
namespace {

TEST(PollerTest, AnEventOfAClosedDescriptorDoesNotReachItsSuccessorOfTheSameNumber) {
  Poller poller;
  std::array<int, 2> fds;
  for (int& fd : fds) fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);  // both readable
  int first_calls = 0;
  int successor_calls = 0;
  // Whichever is told of first closes the other one and takes its number for a new descriptor.
  for (const int i : {0, 1}) {
    poller.Add(fds[i], EPOLLIN, [&, i](uint32_t) {
      ++first_calls;
      const int other = fds[1 - i];
      poller.Remove(other);
      const int fresh = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);  // not readable
      ASSERT_EQ(dup2(fresh, other), other);
      close(fresh);
      poller.Add(other, EPOLLIN, [&](uint32_t) { ++successor_calls; });
    });
  }
  poller.Wait(std::chrono::milliseconds(1000));
  EXPECT_EQ(first_calls, 1);
  EXPECT_EQ(successor_calls, 0);
  for (const int fd : fds) {
    poller.Remove(fd);
    close(fd);
  }
}

}  // namespace
}  // namespace switchyard::agent
