#include "coordinator/schedule/node_table.h"

#include <gmock/gmock.h>

namespace switchyard::coordinator {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

agent::v1::Hello HelloOf(const std::string& node, const std::string& incarnation) {
  agent::v1::Hello hello;
  hello.set_node(node);
  hello.set_incarnation(incarnation);
  return hello;
}

class NodeTableTest : public testing::Test {
 protected:
  // Ticks twice a second, as the coordinator does, until `end`.
  void TickUntil(Clock::SteadyTime end) {
    for (; now_ < end; now_ += milliseconds(500)) table_.Tick(now_);
    table_.Tick(now_);
  }
  v1::NodeState state() { return table_.Find("a")->node.state(); }

  NodeTable table_{NodeTable::Options()};
  const Clock::SteadyTime start_ = Clock::SteadyTime(std::chrono::hours(1));
  Clock::SteadyTime now_ = start_;
};

TEST_F(NodeTableTest, SuspectsThenLosesASilentNode) {
  table_.Hello(HelloOf("a", "1"), 1, now_);
  TickUntil(start_ + seconds(4));
  EXPECT_EQ(state(), v1::NODE_STATE_READY);
  TickUntil(start_ + seconds(6));
  EXPECT_EQ(state(), v1::NODE_STATE_SUSPECT);
  table_.Heard("a", 1, now_);
  table_.Tick(now_);
  EXPECT_EQ(state(), v1::NODE_STATE_READY);
  TickUntil(now_ + seconds(11));
  EXPECT_EQ(state(), v1::NODE_STATE_LOST);
  EXPECT_FALSE(table_.Find("a")->connected());
}

TEST_F(NodeTableTest, ItsOwnStandstillCostsNobodyTheLease) {
  table_.Hello(HelloOf("a", "1"), 1, now_);
  TickUntil(start_ + seconds(1));
  now_ += seconds(60);  // the coordinator slept
  table_.Tick(now_);
  EXPECT_EQ(state(), v1::NODE_STATE_READY);
}

TEST_F(NodeTableTest, ABrokenStreamIsSuspectAtOnceAndKeepsItsLease) {
  table_.Hello(HelloOf("a", "1"), 1, now_);
  table_.Disconnected("a", 1);
  table_.Tick(now_);
  EXPECT_EQ(state(), v1::NODE_STATE_SUSPECT);
  table_.Hello(HelloOf("a", "1"), 2, now_);
  table_.Disconnected("a", 1);  // late news of the old stream
  table_.Tick(now_);
  EXPECT_EQ(state(), v1::NODE_STATE_READY);
}

TEST_F(NodeTableTest, ANameIsTakenOnlyByALiveOtherAgent) {
  table_.Hello(HelloOf("a", "1"), 1, now_);
  EXPECT_FALSE(table_.IsTaken(HelloOf("a", "1"), now_)) << "the same agent dials again";
  EXPECT_TRUE(table_.IsTaken(HelloOf("a", "2"), now_));
  EXPECT_FALSE(table_.IsTaken(HelloOf("a", "2"), now_ + seconds(6))) << "the old one is silent";
}

TEST_F(NodeTableTest, NodesOfAnEarlierRunHaveTimeToDialIn) {
  v1::Node node;
  node.set_name("nodes/a");
  table_.Restore(node, now_);
  TickUntil(start_ + seconds(29));
  EXPECT_EQ(state(), v1::NODE_STATE_SUSPECT);
  TickUntil(start_ + seconds(31));
  EXPECT_EQ(state(), v1::NODE_STATE_LOST);
}

TEST_F(NodeTableTest, AgentsOfOneMachineShareItsMemory) {
  const auto bytes = [&](const char* node) {
    const NodeEntry* entry = table_.Find(node);
    return entry->SlotBytes(entry->node.slots(0));
  };
  const auto hello = [](const char* node, int slots, int64_t each, const char* domain) {
    agent::v1::Hello message = HelloOf(node, "1");
    message.mutable_inventory()->set_memory_domain(domain);
    for (int i = 0; i < slots; ++i) {
      auto& slot = *message.mutable_inventory()->add_slots();
      slot.set_device("cpu");
      slot.set_memory_bytes(each);
    }
    return message;
  };
  table_.Hello(hello("a", 2, 1100, "m"), 1, now_);
  table_.Hello(hello("elsewhere", 2, 1100, "n"), 3, now_);
  EXPECT_EQ(bytes("a"), 1100);
  table_.Hello(hello("b", 1, 2200, "m"), 2, now_);
  EXPECT_EQ(bytes("a"), 550);
  EXPECT_EQ(bytes("b"), 1100);
  EXPECT_EQ(table_.Find("a")->machine_bytes, 2200);
  EXPECT_EQ(bytes("elsewhere"), 1100);
  table_.Tick(now_);
  for (int i = 0; i < 11; ++i) {
    now_ += seconds(1);
    table_.Heard("a", 1, now_);
    table_.Tick(now_);
    EXPECT_EQ(bytes("a"), i < 9 ? 550 : 1100)
        << "b is lost with its lease, after " << i + 1 << " s";
  }
  table_.Hello(hello("b", 1, 100, "m"), 4, now_);  // while ranks of a hold the rest
  table_.Tick(now_);
  EXPECT_EQ(2 * bytes("a") + bytes("b"), 2199) << "never more than the largest offer";
}

TEST_F(NodeTableTest, AnEndIsFinalAndOldSessionsAreNotHeard) {
  table_.Hello(HelloOf("a", "1"), 1, now_);
  agent::v1::AttemptStatus status;
  status.set_job_uid("u");
  status.set_epoch(3);
  status.set_state(agent::v1::ATTEMPT_STATE_ENDED);
  table_.Report("a", 1, status);
  status.set_state(agent::v1::ATTEMPT_STATE_RUNNING);
  table_.Report("a", 1, status);
  EXPECT_EQ(table_.Find("a")->attempts.at({"u", 3}).state(), agent::v1::ATTEMPT_STATE_ENDED);
  status.set_epoch(4);
  table_.Report("a", 99, status);
  EXPECT_EQ(table_.Find("a")->attempts.size(), 1);
}

}  // namespace
}  // namespace switchyard::coordinator
