#!/usr/bin/env python3
"""Measures the CPU engine on the demo model of quickstart.sh, beside Transformers, and how soon a job trains.

Speed: one whole training step (forward, backward, clip, AdamW; float32, one process) of `switchyard-trainer bench` and of
Transformers, on random weights and tokens in the shape of the demo job. The two take turns, so that a disturbance of the
machine hits both; medians are printed. Both let OpenMP threads spin only briefly while they wait (GOMP_SPINCOUNT=1000).

Start: from CreateJob to the first step of the demo job on a coordinator and two agents, its data prepared by an earlier job.
Times are those of the API: job, events and the first StepSample.

    tools/benchmark_cpu.py --rounds 5 --threads 1 2
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Name in the table -> attention of Transformers. Experts are Transformers' default for training, its grouped GEMM.
VARIANTS = {"eager": "eager", "sdpa": "sdpa"}
# Stages of a start, each ended by the first event of this type; the first step ends the last one.
STAGES = [
    ("queue and reserve slots", "AttemptReserved"),
    ("launch order to the agents", "AttemptLaunching"),
    ("find the prepared data", "DataPrepared"),
    ("start ranks, load the model", "AttemptRunning"),
    ("held-out loss before training", "Evaluated"),
    ("first step", None),
]


def transformers_worker(model, attention, threads, sequences, length):
    """Answers each number of steps on standard input with a JSON list of their seconds; the first ever is not counted."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = Qwen3MoeConfig.from_pretrained(model)
    config._attn_implementation = attention
    net = Qwen3MoeForCausalLM(config).float().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5)
    ids = torch.randint(config.vocab_size, (sequences, length))
    for line in sys.stdin:
        seconds = []
        for _ in range(1 + int(line)):  # one to wake up
            begin = time.perf_counter()
            optimizer.zero_grad()
            net(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            seconds.append(time.perf_counter() - begin)
        print(json.dumps(seconds[1:]), flush=True)


def quiet_environment():
    """Returns the environment of every measured program."""
    return {"GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"} | dict(os.environ)


@contextlib.contextmanager
def worker(options, variant, threads):
    """Runs transformers_worker in a process; yields a function from steps to their median seconds."""
    command = [sys.executable, __file__, "--worker", VARIANTS[variant], "--demo", options.demo, "--threads", str(threads)]
    command += ["--sequences", str(options.sequences), "--sequence-length", str(options.sequence_length)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet_environment()
    )

    def measure(steps):
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"Transformers ({variant}) ended with {process.wait()}; its message is above")
        return statistics.median(json.loads(line))

    try:
        yield measure
    finally:
        process.kill()
        process.wait()


def trainer_seconds(options, threads, steps):
    """Returns the median seconds of a step of the trainer."""
    command = [f"{options.bin}/switchyard-trainer", "bench", "--model-config", f"{options.demo}/model"]
    command += ["--sequence-length", str(options.sequence_length), "--micro-batch", str(options.sequences)]
    command += ["--threads", str(threads), "--warmup", "1", "--steps", str(steps)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=quiet_environment()).stdout
    return float(re.search(r"^step +([\d.]+) ms", text, re.MULTILINE).group(1)) / 1e3


def measure_speed(options):
    """Prints the table of tokens/s and ratios."""
    tokens = options.sequences * options.sequence_length
    print(f"{tokens} tokens a step, float32, one rank, medians of {options.rounds} turns of {options.steps} steps")
    print(f"{'threads':>7}  {'program':<22} {'ms/step':>8} {'tokens/s':>9}  trainer is")
    for threads in options.threads:
        seconds = {name: [] for name in ("trainer", *VARIANTS)}
        with contextlib.ExitStack() as stack:
            others = {name: stack.enter_context(worker(options, name, threads)) for name in VARIANTS}
            for _ in range(options.rounds):
                seconds["trainer"].append(trainer_seconds(options, threads, options.steps))
                for name, measure in others.items():
                    seconds[name].append(measure(options.steps))
        own = statistics.median(seconds["trainer"])
        for name, values in seconds.items():
            middle = statistics.median(values)
            label = "switchyard-trainer" if name == "trainer" else f"Transformers {name}"
            ratio = "" if name == "trainer" else f"{middle / own:.2f}x"
            print(f"{threads:>7}  {label:<22} {middle * 1e3:>8.0f} {tokens / middle:>9.0f}  {ratio}", flush=True)


def instant(text):
    """Returns the seconds since 1970 of a timestamp of the API."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    begin = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return begin.timestamp() + float(f"0.{fraction or 0}")


class Cluster:
    """A coordinator and two agents with two CPU slots each, on free ports, with everything they write in `directory`."""

    def __init__(self, options, directory):
        """Starts them and waits until both agents are ready."""
        self.bin, self.directory, self.daemons = options.bin, directory, []
        try:
            self._start("switchyard-coordinator", "--listen", "127.0.0.1:0", "--metrics", "off", "--state-dir", "coordinator")
            self.address = self._wait("the coordinator", self._listening)
            for node in ("node-a", "node-b"):
                arguments = ["--coordinator", self.address, "--node", node, "--cpu-slots", "2"]
                arguments += ["--prepare-data", str(ROOT / "tools/prepare_data.py")]
                self._start("switchyard-agent", *arguments, "--metrics", "off", "--work-dir", node)
            self._wait("two ready agents", lambda: str(self.call("nodes")).count("_READY'") == 2)
        except BaseException:
            self.close()
            raise

    def _start(self, program, *arguments):
        with (self.directory / f"{len(self.daemons)}.log").open("w") as log:
            command = [f"{self.bin}/{program}", *arguments]
            self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory))

    def _listening(self):
        found = re.search(r'"address":"([^"]+)"', (self.directory / "0.log").read_text())
        return found and found.group(1)

    def _wait(self, what, ready, seconds=300):
        for _ in range(int(seconds / 0.1)):
            if result := ready():
                return result
            if any(daemon.poll() is not None for daemon in self.daemons):
                break
            time.sleep(0.1)
        logs = "\n".join(log.read_text()[-2000:] for log in sorted(self.directory.glob("*.log")))
        raise RuntimeError(f"{what}: not seen within {seconds} s. The daemons' logs:\n{logs}")

    def call(self, *arguments):
        """Returns the JSON answer of a `switchyard` command."""
        command = [f"{self.bin}/switchyard", "--coordinator", self.address, "--output", "json", *arguments]
        for _ in range(3):
            done = subprocess.run(command, capture_output=True, text=True)
            if "UNAVAILABLE" not in done.stderr:  # a machine so busy that a connection timed out
                break
        if done.returncode != 0:
            raise RuntimeError(f"switchyard {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def start_of(self, spec, job):
        """Submits a job and returns its times as {what: seconds since 1970} once it has made a step; then deletes it."""
        self.call("submit", "--job-id", job, str(spec))

        def first_step():
            state = self.call("get", job)
            if state["terminal"]:
                raise RuntimeError(f"{job} ended before its first step: {state['reason']['message']}")
            return self.call("metrics", job)["samples"][:1]

        sample = self._wait(f"first step of {job}", first_step)[0]
        times = {"created": instant(self.call("get", job)["create_time"]), None: instant(sample["time"])}
        for event in self.call("events", job)["events"]:
            times.setdefault(event["type"], instant(event["time"]))
        self.call("cancel", job)
        self._wait(f"end of {job}", lambda: self.call("get", job)["terminal"])
        self.call("delete", job)
        return times

    def close(self):
        """Ends the daemons; agents end their trainers."""
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def measure_start(options):
    """Prints the median seconds of each stage from CreateJob to the first step with prepared data."""
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as name:
        directory = pathlib.Path(name)
        text = (ROOT / "examples/foldoc/job.yaml").read_text()
        text = re.sub(r"@ROOT@/out/foldoc/output", str(directory / "output"), text)
        text = text.replace("@ROOT@/out/foldoc", str(pathlib.Path(options.demo).resolve()))
        (directory / "job.yaml").write_text(text)
        cluster = Cluster(options, directory)
        try:
            runs = [cluster.start_of(directory / "job.yaml", f"bench-{i}") for i in range(1 + options.starts)]
        finally:
            cluster.close()
    stages = {}
    for number, times in enumerate(runs):
        last = times["created"]
        for stage, event in STAGES:
            if event in times:
                stages.setdefault(stage, [[], []])[number > 0].append(times[event] - last)
                last = times[event]
    print(f"\nCreateJob to the first step, 4 ranks on two agents: first job, then the median of {options.starts} with its data")
    for stage, (first, later) in stages.items():
        print(f"  {stage:<30} {first[0]:>7.2f} s {statistics.median(later):>7.2f} s")
    totals = [times[None] - times["created"] for times in runs]
    print(f"  {'sum':<30} {totals[0]:>7.2f} s {statistics.median(totals[1:]):>7.2f} s")


def make_demo(demo):
    """Makes the quickstart's data and model where they are missing."""
    demo = pathlib.Path(demo)
    if not (demo / "model/config.json").exists():
        subprocess.run([sys.executable, ROOT / "tools/foldoc.py", "--output", demo / "data"], check=True)
        data = demo / "data/train.jsonl"
        command = [sys.executable, ROOT / "tools/make_demo_model.py", "--data", data, "--output", demo / "model"]
        subprocess.run(command, check=True)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=str(ROOT / "build/bin"), help="directory of the programs")
    parser.add_argument("--demo", default=str(ROOT / "out/foldoc"), help="directory of the demo's data and model")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sequences", type=int, default=8, help="of a step; the demo job's")
    parser.add_argument("--sequence-length", type=int, default=256, help="the demo job's")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program")
    parser.add_argument("--steps", type=int, default=3, help="measured in a turn, after one other")
    parser.add_argument("--starts", type=int, default=3, help="jobs whose start is measured, after one other; 0 for none")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        model = f"{options.demo}/model"
        transformers_worker(model, options.worker, options.threads[0], options.sequences, options.sequence_length)
        return
    options.bin = str(pathlib.Path(options.bin).resolve())
    make_demo(options.demo)
    if options.rounds > 0:
        measure_speed(options)
    if options.starts > 0:
        measure_start(options)


if __name__ == "__main__":
    main()
