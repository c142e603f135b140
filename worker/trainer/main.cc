// switchyard-trainer: trains one rank for an agent, or a whole model on this machine alone.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "common/model/activation_memory.h"
#include "worker/trainer/bench/bench_command.h"
#include "worker/trainer/train/check_command.h"
#include "worker/trainer/train/run_command.h"

namespace {

using switchyard::trainer::BenchOptions;
using switchyard::trainer::CheckCommandOptions;
using switchyard::trainer::RunOptions;

CLI::App* AddRun(CLI::App& app, RunOptions* options) {
  CLI::App* run = app.add_subcommand("run", "Train as a configuration file says");
  run->add_option("--config", options->config, "train.json; docs/protocol.md explains its fields")
      ->required();
  run->add_option("--ranks", options->ranks, "Ranks on this machine; default: the file's")
      ->check(CLI::PositiveNumber);
  run->add_option("--rank", options->rank,
                  "Be this rank, with lines to the agent on fd 3 and from it on fd 4; without it "
                  "all ranks are "
                  "started")
      ->check(CLI::NonNegativeNumber);
  return run;
}

void AddActivationMemory(CLI::App& command, std::string* value) {
  command
      .add_option("--activation-memory", *value,
                  "What layers keep for the backward; default: all where it costs no memory, else "
                  "recompute_rows")
      ->check(CLI::IsMember(switchyard::ActivationMemoryNames()));
}

CLI::App* AddBench(CLI::App& app, BenchOptions* options) {
  CLI::App* bench =
      app.add_subcommand("bench", "Measure training speed with random weights and tokens");
  CLI::Option_group* what = bench->add_option_group("what to measure");
  what->require_option(1);
  what->add_option("--model-config", options->model_config,
                   "Whole steps of this model: config.json, or a directory with one");
  CLI::Option* calibrate =
      what->add_flag("--calibrate", options->calibrate,
                     "The device's rates, for the planner's predictions (takes seconds)");
  bench->add_option("--out", options->out, "Put the rates into this JSON file (--calibrate)")
      ->needs(calibrate);
  bench->add_option("--layers", options->layers, "Decoder layers; default: the configuration's");
  bench->add_option("--ranks", options->ranks)->check(CLI::PositiveNumber)->capture_default_str();
  bench->add_option("--expert-parallel", options->expert_parallel)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench->add_option("--sequence-length", options->sequence_length)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench
      ->add_option("--documents", options->documents,
                   "Packed into each sequence, of random lengths")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench->add_option("--micro-batch", options->micro_batch, "Sequences a rank takes at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench->add_option("--accumulation", options->accumulation, "Micro-batches of a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench->add_option("--steps", options->steps, "Measured steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench->add_option("--warmup", options->warmup, "Steps before")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  bench->add_option("--device", options->device)
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  bench->add_option("--dtype", options->dtype, "Default: float32 on cpu, bfloat16 on cuda")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  bench->add_option("--optimizer", options->optimizer, "Profile; none: forward and backward only")
      ->check(CLI::IsMember({"exact", "compact", "none"}))
      ->capture_default_str();
  AddActivationMemory(*bench, &options->activation_memory);
  bench->add_option("--aux-loss-coef", options->aux_loss_coef)
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  bench->add_option("--trace", options->trace,
                    "Write a Chrome trace of one more step of rank 0 here (cuda)");
  bench->add_option("--checkpoint", options->checkpoint,
                    "Save into a new directory under this one and load from it, instead of steps; "
                    "--model-config is then a whole model directory");
  bench->add_flag("--phases", options->phases, "Also tell where a step's time goes, by phase");
  bench->add_flag("--deterministic", options->deterministic,
                  "The same bytes from run to run (cuda; always so on cpu)");
  bench->add_option("--gate", options->gate, "Who routes: the router, or positions, evenly")
      ->check(CLI::IsMember({"router", "scattered", "consecutive"}))
      ->capture_default_str();
  bench->add_option("--threads", options->threads, "Of one rank; default: cores / ranks");
  bench->add_option("--rank", options->rank)->group("");
  return bench;
}

CLI::App* AddCheck(CLI::App& app, CheckCommandOptions* options) {
  CLI::App* check =
      app.add_subcommand("check", "Compute logits, loss and gradients of a given batch");
  switchyard::trainer::CheckOptions& o = options->check;
  check->add_option("--model", o.model, "Hugging Face directory")->required();
  check
      ->add_option("--batch", o.batch,
                   "safetensors: input_ids, labels and optionally position_ids, int64 [B, S]")
      ->required();
  check->add_option("--out", o.out, "safetensors to write: logits, loss, aux_loss, grad.*, param.*")
      ->required();
  check->add_option("--ranks", o.ranks)->check(CLI::PositiveNumber)->capture_default_str();
  check->add_option("--expert-parallel", o.expert_parallel)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  check->add_option("--device", options->device)
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  check->add_option("--dtype", options->dtype)
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  AddActivationMemory(*check, &options->activation_memory);
  check->add_option("--steps", o.steps, "AdamW steps on the batch")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  check->add_option("--learning-rate", o.learning_rate)
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  check->add_option("--beta1", o.adamw.beta1)->check(CLI::Range(0.0, 1.0))->capture_default_str();
  check->add_option("--beta2", o.adamw.beta2)->check(CLI::Range(0.0, 1.0))->capture_default_str();
  check->add_option("--eps", o.adamw.eps)->check(CLI::NonNegativeNumber)->capture_default_str();
  check->add_option("--weight-decay", o.adamw.weight_decay)
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  check->add_option("--max-grad-norm", o.max_grad_norm, "Clip to this norm; 0 for no clipping")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  check->add_option("--threads", options->threads, "Of one rank; default: cores / ranks");
  check->add_option("--rank", options->rank)->group("");
  return check;
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a reader that is gone is an error of the write
  CLI::App app{"Trains mixture-of-experts models. Exit codes: docs/protocol.md."};
  app.set_version_flag("--version", SWITCHYARD_VERSION);
  app.require_subcommand(1);
  RunOptions run_options;
  BenchOptions bench_options;
  CheckCommandOptions check_options;
  const CLI::App* run = AddRun(app, &run_options);
  const CLI::App* bench = AddBench(app, &bench_options);
  const CLI::App* check = AddCheck(app, &check_options);
  CLI11_PARSE(app, argc, argv);
  if (run->parsed()) return switchyard::trainer::RunCommand(run_options);
  if (bench->parsed()) {
    return switchyard::trainer::BenchCommand(bench_options,
                                             std::vector<std::string>(argv + 1, argv + argc));
  }
  if (check->parsed()) {
    return switchyard::trainer::CheckCommand(check_options,
                                             std::vector<std::string>(argv + 1, argv + argc));
  }
  return 0;
}
