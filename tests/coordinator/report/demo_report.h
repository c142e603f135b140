// A whole job's worth of report input, made up but of the right shape: 400 steps, a recovery, 12
// layers of 32 experts.
#pragma once

#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/report/html_report.h"

namespace switchyard::coordinator {

inline void AddDemoPlan(v1::Job& job) {
  auto& plan = *job.mutable_plan();
  plan.set_feasible(true);
  plan.set_ranks(4);
  plan.set_expert_parallel(2);
  plan.set_expert_data_parallel(2);
  plan.set_device("cpu");
  plan.set_precision("float32");
  plan.set_optimizer("exact");
  plan.set_micro_batch_sequences(2);
  plan.set_gradient_accumulation(2);
  plan.set_global_batch_sequences(16);
  plan.set_sequence_length(256);
  plan.set_total_steps(400);
  plan.set_total_tokens(400LL * 16 * 256);
  const std::vector<std::pair<const char*, int64_t>> memory = {
      {"parameters", 58}, {"gradients", 58}, {"optimizer", 62}, {"saved_activations", 121},
      {"workspace", 34},  {"windows", 18},   {"logits", 46},    {"runtime_baseline", 236}};
  for (const auto& [name, mebibytes] : memory) {
    auto& category = *plan.add_memory();
    category.set_name(name);
    category.set_bytes(mebibytes << 20);
    plan.set_memory_bytes_per_rank(plan.memory_bytes_per_rank() + category.bytes());
  }
  plan.set_memory_capacity_bytes_per_rank(int64_t{1} << 30);
  plan.set_tokens_per_second(7100);
  plan.mutable_duration()->set_seconds(231);
  plan.set_checkpoint_bytes(int64_t{182} << 20);
  plan.set_disk_free_bytes(int64_t{41} << 30);
  plan.set_disk_needed_bytes(int64_t{728} << 20);
  plan.set_model_parameters(15200000);
  plan.set_active_parameters(6100000);
  plan.add_warnings("4 ranks share 2 cores: each computes with half a core");
  for (int expert_parallel : {4, 1}) {
    auto& other = *plan.add_rejected();
    other.set_ranks(4);
    other.set_expert_parallel(expert_parallel);
    other.set_micro_batch_sequences(2);
    other.set_memory_bytes_per_rank(int64_t{expert_parallel == 1 ? 702 : 598} << 20);
    other.set_tokens_per_second(expert_parallel == 1 ? 6420 : 6905);
    other.set_reason(
        absl::StrCat("expert_parallel ", expert_parallel, " is predicted to be slower"));
  }
  (*plan.mutable_defaults())["training.beta1"] = "0.9";
  (*plan.mutable_defaults())["training.seed"] = "0";
}

inline void AddDemoSamples(ReportInput& input) {
  const std::vector<std::pair<const char*, double>> phases = {
      {"data", 0.002},   {"forward", 0.17},          {"backward", 0.31}, {"dispatch", 0.021},
      {"combine", 0.02}, {"reduce_gradients", 0.03}, {"agree", 0.004},   {"update", 0.02}};
  for (int step = 1; step <= 400; ++step) {
    v1::StepSample sample;
    sample.set_step(step);
    const double noise = std::sin(step * 12.9898) * 0.5 + std::sin(step * 78.233) * 0.5;
    const double decay = std::exp(-step / 70.0);
    sample.set_loss(2.2 + 6.8 * decay + 0.12 * noise);
    sample.set_aux_loss(1.05 + 0.4 * decay);
    sample.set_skipped(step == 143);
    sample.set_learning_rate(
        1e-3 * (step < 12 ? step / 12.0 : 0.5 + 0.5 * std::cos(3.14159 * (step - 12) / 388)));
    sample.set_grad_norm(0.4 + 2.5 * decay + 0.15 * std::abs(noise));
    sample.set_step_seconds(0.6 + 0.03 * noise + (step == 201 ? 0.9 : 0));
    sample.set_tokens_per_second(4096 / sample.step_seconds());
    for (const auto& [phase, seconds] : phases) (*sample.mutable_phase_seconds())[phase] = seconds;
    sample.set_expert_load_max_over_mean(1.3 + 2 * std::exp(-step / 30.0) + 0.1 * noise);
    sample.set_router_entropy_ratio(0.89 + 0.08 * std::exp(-step / 150.0) + 0.003 * noise);
    if (step % 50 == 0) sample.set_eval_loss(2.3 + 6.8 * decay);
    if (step % 50 == 0) input.job.mutable_progress()->set_eval_loss(sample.eval_loss());
    input.samples.push_back(std::move(sample));
  }
}

inline void AddDemoHistory(ReportInput& input) {
  const std::vector<std::tuple<const char*, v1::EventSeverity, const char*>> events = {
      {"JobCreated", v1::EVENT_SEVERITY_INFO,
       "Created with plan: 4 ranks, expert-parallel 2 on cpu."},
      {"JobLaunched", v1::EVENT_SEVERITY_INFO,
       "Attempt 1 on node-a (ranks 0, 1) and node-b (ranks 2, 3)."},
      {"CheckpointCommitted", v1::EVENT_SEVERITY_INFO, "Step 200, 182 MiB in 0.8 s."},
      {"RankFailed", v1::EVENT_SEVERITY_ERROR, "Rank 2 was killed by signal 9."},
      {"JobRecovering", v1::EVENT_SEVERITY_WARNING, "Attempt 2 of 5 starts from step 200."},
      {"JobSucceeded", v1::EVENT_SEVERITY_INFO, "400 steps; the model is in /out/foldoc/final."}};
  for (const auto& [type, severity, message] : events) {
    const auto index = static_cast<int64_t>(input.events.size());
    v1::Event event;
    event.mutable_time()->set_seconds(1760000000 + index * 48);
    event.set_epoch(index == 0 ? 0 : (index < 4 ? 1 : 2));
    event.set_type(type);
    event.set_severity(severity);
    event.set_message(message);
    input.events.push_back(std::move(event));
  }
  for (int epoch = 1; epoch <= 2; ++epoch) {
    auto& attempt = *input.job.add_attempts();
    attempt.set_epoch(epoch);
    attempt.mutable_start_time()->set_seconds(1760000012 + (epoch - 1) * 130);
    attempt.mutable_end_time()->set_seconds(1760000132 + (epoch - 1) * 130);
    attempt.set_resumed_from_step(epoch == 1 ? 0 : 200);
    attempt.set_last_step(epoch == 1 ? 211 : 400);
    for (int rank = 0; rank < 4; ++rank) {
      auto& placement = *attempt.add_placements();
      placement.set_rank(rank);
      placement.set_node(rank < 2 ? "node-a" : "node-b");
    }
    attempt.mutable_outcome()->set_code(epoch == 1 ? "RANK_KILLED" : "OK");
    if (epoch == 1) attempt.mutable_outcome()->set_message("rank 2 was killed by signal 9");
  }
}

inline v1::ExpertLoad DemoExpertLoad() {
  v1::ExpertLoad load;
  load.set_step(400);
  load.set_num_experts(32);
  for (int layer = 0; layer < 12; ++layer) {
    auto& row = *load.add_layers();
    row.set_layer(layer);
    for (int expert = 0; expert < 32; ++expert) {
      const double wave =
          std::sin(layer * 3.7 + expert * 1.9) + 0.6 * std::sin(layer * 1.3 - expert * 4.1);
      const bool idle = layer == 3 && expert == 17;
      row.add_tokens_per_expert(idle ? 0 : static_cast<int64_t>(512 * std::exp(0.55 * wave)));
    }
  }
  return load;
}

inline ReportInput DemoReport() {
  ReportInput input;
  v1::Job& job = input.job;
  job.set_name("projects/default/jobs/foldoc-qa");
  job.set_state(v1::JOB_STATE_SUCCEEDED);
  job.set_terminal(true);
  job.set_output_model("/out/foldoc/final");
  job.mutable_create_time()->set_seconds(1760000000);
  job.mutable_start_time()->set_seconds(1760000012);
  job.mutable_end_time()->set_seconds(1760000262);
  auto& spec = *job.mutable_spec();
  spec.set_name("foldoc-qa");
  spec.set_model("/models/qwen3-moe-tiny");
  spec.mutable_data()->set_train("/data/foldoc/train.jsonl");
  spec.mutable_data()->set_eval("/data/foldoc/eval.jsonl");
  spec.mutable_training()->set_steps(400);
  spec.mutable_checkpoint()->set_output("/out/foldoc");
  (*spec.mutable_labels())["team"] = "language";
  auto& progress = *job.mutable_progress();
  progress.set_step(400);
  progress.set_total_steps(400);
  progress.set_loss(2.31);
  progress.set_initial_eval_loss(9.07);
  progress.set_tokens_per_second(6783);
  progress.set_peak_memory_bytes(int64_t{661} << 20);
  AddDemoPlan(job);
  AddDemoSamples(input);
  AddDemoHistory(input);
  input.expert_load = DemoExpertLoad();
  return input;
}

}  // namespace switchyard::coordinator
