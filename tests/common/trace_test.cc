#include "common/trace.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

namespace switchyard {
namespace {

TEST(TraceTest, WhatIsWrittenIsRead) {
  const std::string id = NewTraceId();
  EXPECT_TRUE(std::regex_match(id, std::regex("[0-9a-f]{32}")));
  EXPECT_NE(id, NewTraceId());
  const std::string parent = Traceparent(id);
  EXPECT_TRUE(std::regex_match(parent, std::regex("00-[0-9a-f]{32}-[0-9a-f]{16}-01"))) << parent;
  EXPECT_EQ(TraceIdOf(parent), id);
  EXPECT_NE(Traceparent(id), parent) << "each call is a parent of its own";
}

TEST(TraceTest, AcceptsWhatTheStandardAccepts) {
  const std::string id = "4bf92f3577b34da6a3ce929d0e0e4736";
  EXPECT_EQ(TraceIdOf("00-" + id + "-00f067aa0ba902b7-00"), id);
  EXPECT_EQ(TraceIdOf("cc-" + id + "-00f067aa0ba902b7-01-of a later version"), id);
  const std::vector<std::string> invalid = {
      "",
      "00",
      "00-" + id,
      "ff-" + id + "-00f067aa0ba902b7-01",
      "00-" + id + "-00f067aa0ba902b7-01-more",
      "00-" + id + "-0000000000000000-01",
      "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
      "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
      "00_" + id + "-00f067aa0ba902b7-01",
      "00-" + id + "-00f067aa0ba902b7-zz"};
  for (const std::string& bad : invalid) EXPECT_EQ(TraceIdOf(bad), std::nullopt) << bad;
}

}  // namespace
}  // namespace switchyard
