#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_join.h"
#include "coordinator/cli/experts_view.h"
#include "coordinator/cli/live_block.h"
#include "coordinator/cli/sparkline.h"
#include "coordinator/cli/text_table.h"
#include "coordinator/cli/watch_view.h"

namespace switchyard::coordinator {
namespace {

using ::testing::HasSubstr;

TEST(TextTableTest, AlignsColumnsByWhatATerminalShows) {
  TextTable table({"A", "N"});
  table.AlignRight(1);
  table.AddRow({"\033[32mgrün\033[0m", "7"});
  table.AddRow({"x", "1234"});
  EXPECT_EQ(table.Render(" "), " A        N\n \033[32mgrün\033[0m     7\n x     1234\n");
}

TEST(TextTableTest, TruncatesWithoutBreakingCharactersOrColours) {
  EXPECT_EQ(Truncate("abcdef", 4), "abc~");
  EXPECT_EQ(Truncate("äöüß", 4), "äöüß");
  EXPECT_EQ(Truncate("äöüßx", 4), "äöü~");
  EXPECT_EQ(Truncate("\033[31mabcdef", 4), "\033[31mabc~\033[0m");
}

TEST(TextTableTest, ControlCharactersNeverReachTheTerminal) {
  EXPECT_EQ(Printable("a\033[2Jb\r\n\tc\x7f"), "a?[2Jb??\tc?");
}

TEST(SparklineTest, DrawsLowToHighAndBlanksForNotFinite) {
  EXPECT_EQ(Sparkline({0, 1, NAN, 7}, 10, true), "▁▂ █");
  EXPECT_EQ(Sparkline({5, 5}, 10, true), "▅▅");
  EXPECT_EQ(Sparkline({0, 0, 8, 8}, 2, true), "▁█");
  EXPECT_EQ(Sparkline({0, 1}, 10, false), "");
}

TEST(ProgressBarTest, FillsInEighths) {
  EXPECT_EQ(ProgressBar(0.5, 4, true), "██░░");
  EXPECT_EQ(ProgressBar(0.53125, 4, true), "██▏░");
  EXPECT_EQ(ProgressBar(2, 4, true), "████");
  EXPECT_EQ(ProgressBar(NAN, 4, true), "░░░░");
  EXPECT_EQ(ProgressBar(0.5, 4, false), "##..");
}

v1::Job RunningJob() {
  v1::Job job;
  job.set_name("projects/default/jobs/foldoc");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_phase(v1::JOB_PHASE_TRAINING);
  job.set_epoch(1);
  job.mutable_plan()->set_ranks(4);
  job.mutable_plan()->set_expert_parallel(2);
  job.mutable_plan()->set_tokens_per_second(1000);
  job.mutable_plan()->set_memory_bytes_per_rank(int64_t{650} << 20);
  job.mutable_progress()->set_step(248);
  job.mutable_progress()->set_total_steps(400);
  job.mutable_progress()->set_loss(2.1345);
  job.mutable_progress()->set_eval_loss(2.2);
  job.mutable_progress()->set_initial_eval_loss(4.521);
  job.mutable_progress()->set_tokens_per_second(920);
  job.mutable_progress()->set_peak_memory_bytes(int64_t{612} << 20);
  job.mutable_progress()->mutable_eta()->set_seconds(72);
  return job;
}

TEST(WatchBlockTest, ShowsProgressLossSpeedMemoryAndExperts) {
  WatchModel model;
  model.SetJob(RunningJob());
  v1::StepSample step;
  step.set_step(249);
  step.set_loss(2.0);
  step.set_expert_load_max_over_mean(1.84);
  step.set_router_entropy_ratio(0.93);
  step.set_step_seconds(2);
  for (const auto& [phase, seconds] : {std::pair("backward", 1.0),
                                       {"forward", 0.5},
                                       {"dispatch", 0.25},
                                       {"reduce_gradients", 0.125},
                                       {"data", 0.002}}) {
    (*step.mutable_phase_seconds())[phase] = seconds;
  }
  model.AddStep(step);
  const auto lines =
      WatchBlock(model, {.width = 80, .color = false, .unicode = true}, absl::Now(), "");
  EXPECT_EQ(absl::StrJoin(lines, "\n"),
            "foldoc  RUNNING · training · attempt 1 · 4 ranks, expert-parallel 2\n"
            "  ███████████████████▉░░░░░░░░░░░░  62%  step 249/400  1 m 12 s left\n"
            "  loss       2.0000  ▅  held-out 2.2000 (from 4.5210)\n"
            "  speed      920 tokens/s  predicted 1,000 tokens/s (92 %)\n"
            "  memory     612 MiB peak a rank, planned 650 MiB\n"
            "  time       backward 50 %, forward 25 %, dispatch 12 %, reduce gradients 6 %\n"
            "  experts    busiest 1.84 x mean, 0 without tokens, router entropy 0.93");
}

TEST(WatchBlockTest, NoLineIsWiderThanTheTerminal) {
  WatchModel model;
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_RECOVERING);
  job.mutable_reason()->set_message(std::string(500, 'x'));
  model.SetJob(job);
  for (int width : {20, 40, 79, 200}) {
    for (bool unicode : {false, true}) {
      for (const auto& line : WatchBlock(model, {width, true, unicode}, absl::Now(), "note")) {
        EXPECT_LE(DisplayWidth(line), width) << line;
      }
    }
  }
}

TEST(WatchModelTest, ARepeatedStepReplacesWhatCameAfterIt) {
  WatchModel model;
  v1::StepSample step;
  for (int i = 1; i <= 4; ++i) {
    step.set_step(i);
    step.set_loss(i);
    model.AddStep(step);
  }
  step.set_step(2);
  step.set_loss(9);
  model.AddStep(step);
  EXPECT_EQ(model.Losses(), (std::vector<double>{1, 9}));
}

TEST(LineTest, StatesAndStepsAreOneLineEach) {
  v1::Job job = RunningJob();
  EXPECT_EQ(JobLine(job), "RUNNING (training), attempt 1");
  job.set_state(v1::JOB_STATE_QUEUED);
  job.clear_phase();
  job.clear_epoch();
  job.set_queue_position(3);
  job.mutable_reason()->set_message("waits for 4 slots");
  EXPECT_EQ(JobLine(job), "QUEUED, place 3 in the queue: waits for 4 slots");
  v1::StepSample step;
  step.set_step(7);
  step.set_loss(1.5);
  step.set_tokens_per_second(1234.5);
  step.set_learning_rate(1e-5);
  step.set_expert_load_max_over_mean(2);
  step.set_peak_memory_bytes(1 << 30);
  EXPECT_EQ(StepLine(job, step),
            "step 7/400  loss 1.5000  1,235 tokens/s  lr 1.00e-05  experts 2.00 x mean  1.00 GiB");
  step.clear_expert_load_max_over_mean();  // not sampled yet
  EXPECT_EQ(StepLine(job, step), "step 7/400  loss 1.5000  1,235 tokens/s  lr 1.00e-05  1.00 GiB");
  step.set_skipped(true);
  EXPECT_EQ(StepLine(job, step), "step 7/400  skipped: loss or gradient was not finite");
}

TEST(ExpertHeatmapTest, GroupsExpertsWhenTheTerminalIsNarrow) {
  v1::ExpertLoad load;
  load.set_num_experts(128);
  auto& layer = *load.add_layers();
  for (int i = 0; i < 128; ++i) layer.add_tokens_per_expert(i == 5 ? 1000 : 10);
  const std::string map = ExpertHeatmap(load, 80);
  EXPECT_THAT(map, HasSubstr("the busiest of 3 a cell"));
  size_t begin = 0;
  while (begin < map.size()) {
    const size_t end = map.find('\n', begin);
    EXPECT_LE(DisplayWidth(map.substr(begin, end - begin)), 80);
    begin = end + 1;
  }
}

TEST(LiveBlockTest, DrawsOverItself) {
  std::ostringstream out;
  LiveBlock block(out);
  block.Draw({"a", "b"});
  block.Draw({"c"});
  EXPECT_EQ(out.str(), "\r\033[2Ka\n\r\033[2Kb\n\033[J\033[2A\r\033[2Kc\n\033[J");
}

}  // namespace
}  // namespace switchyard::coordinator
