// A fake API server and what tests of its clients need.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/log.h"
#include "tests/coordinator/kubernetes/fake_api_server.h"

namespace switchyard::coordinator {

class KubernetesFixture : public testing::Test {
 protected:
  void SetUp() override {
    log::SetMinimumLevel(log::Level::kError);
    std::string pattern =
        (std::filesystem::temp_directory_path() / "switchyard-kubernetes.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    server_ = std::make_unique<FakeApiServer>(root_);
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(root_);
  }
  static bool Wait(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000 && !condition(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return condition();
  }

  std::string root_;
  std::unique_ptr<FakeApiServer> server_;
  const Resource jobs_{"batch", "jobs", "ns"};
};

}  // namespace switchyard::coordinator
