"""Tools around the service: `switchyard data prepare`, and the benchmark from end to end. No times are asserted."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from support import inputs
from support.cluster import JOBS
from support.processes import program

ROOT = pathlib.Path(__file__).resolve().parents[2]


def prepare(*arguments):
    """Runs `switchyard data prepare`, from another directory and without a coordinator."""
    environment = os.environ | {"SWITCHYARD_TOOLS": str(ROOT / "tools"), "SWITCHYARD_PYTHON": sys.executable}
    command = [program("switchyard"), "data", "prepare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", env=environment, check=False)


def test_data_prepare_is_the_tool_with_its_flags_output_and_exit_code(tiny, tmp_path):
    arguments = ["--model", tiny.model, "--sequence-length", "64", "--output-dir", tmp_path / "out"]
    done = prepare("--train", tiny.train, "--eval", tiny.eval, *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["train_sequences"] > 0 and result["eval_sequences"] > 0 and not result["cached"]
    assert json.loads((pathlib.Path(result["train_dir"]) / "index.json").read_text())["report"]["examples"] == 400
    assert "400 examples, 400 kept" in done.stderr
    assert json.loads(prepare("--train", tiny.train, "--eval", tiny.eval, *arguments).stdout)["cached"]

    (tmp_path / "bad.jsonl").write_text('{"messages": []}\nnot JSON\n')
    refused = prepare("--train", tmp_path / "bad.jsonl", *arguments)
    assert refused.returncode == 65 and "bad.jsonl:2: not JSON" in refused.stderr
    assert "--max-bad-lines" in prepare("--help").stdout


def test_the_benchmark_measures_speed_and_start(tiny, tmp_path):
    demo = tmp_path / "demo"
    (demo / "data").mkdir(parents=True)
    inputs.write_data(demo / "data/train.jsonl", 8000, seed=4)
    shutil.copy(tiny.eval, demo / "data/eval.jsonl")
    shutil.copytree(tiny.model, demo / "model")
    command = [sys.executable, ROOT / "tools/benchmark_cpu.py", "--bin", program("switchyard").parent, "--demo", demo]
    command += ["--threads", "1", "--sequences", "2", "--sequence-length", "64", "--rounds", "1", "--steps", "1", "--starts", "1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("switchyard-trainer", "Transformers eager", "Transformers sdpa"):
        assert re.search(rf"^ +1  {name} +\d+ +[1-9]\d*\b", done.stdout, re.MULTILINE), done.stdout
    for stage in ("find the prepared data", "start ranks, load the model", "first step", "sum"):
        assert re.search(rf"^  {stage} +\d+\.\d\d s +\d+\.\d\d s$", done.stdout, re.MULTILINE), done.stdout


def calibrate(*arguments):
    command = [program("switchyard-trainer"), "bench", "--calibrate", "--device", "cpu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_plan_uses_the_rates_that_a_calibration_measured_and_says_so(start_cluster, tiny, tmp_path):
    rates = tmp_path / "rates.json"
    other = {"product": "NVIDIA H200", "device": "cuda", "precision": "bfloat16", "dense_flops": 6e14}
    rates.write_text(json.dumps({"format": 1, "devices": [other]}))
    done = calibrate("--ranks", 2, "--out", rates)
    assert done.returncode == 0, done.stdout + done.stderr
    kept, measured = json.loads(rates.read_text())["devices"]
    assert kept == other
    for name in ("dense_flops", "expert_flops", "attention_forward_flops", "attention_backward_flops", "memory_bytes_per_second",
                 "link_bytes_per_second", "collective_bytes_per_second", "launch_collective_seconds"):  # fmt: skip
        assert measured[name] > 0, measured
        assert re.search(rf"^  {name} +\d", done.stdout, re.MULTILINE), done.stdout

    def plan(cluster):
        spec = tiny.spec(tmp_path / "output", ranks=2, expert_parallel=2)
        return cluster.api.call(JOBS, "PlanJob", spec=spec)["plan"]

    known = plan(start_cluster())
    own = plan(start_cluster(coordinator_arguments=["--rates", rates]))
    assert any("not from this machine" in warning for warning in known["warnings"])
    assert any(f"a calibration of {measured['product']} on 20" in warning for warning in own["warnings"])
    # A machine that is said to be a hundred times slower is predicted to be.
    rated = {name: value for name, value in measured.items() if name.endswith(("_flops", "_per_second"))}
    slow = {name: value / 100 for name, value in rated.items()}
    rates.write_text(json.dumps({"format": 1, "devices": [measured | slow]}))
    slower = plan(start_cluster(coordinator_arguments=["--rates", rates]))
    assert slower["tokens_per_second"] < own["tokens_per_second"] / 3


def test_a_calibration_does_not_overwrite_another_file(tmp_path):
    file = tmp_path / "notes.json"
    file.write_text('{"mine": 1}')
    refused = calibrate("--out", file)
    assert refused.returncode != 0 and "is no file of rates" in refused.stderr
    assert file.read_text() == '{"mine": 1}'
    both = calibrate("--model-config", tmp_path)
    assert both.returncode != 0


def test_a_benchmark_of_a_model_by_name_says_that_a_path_is_wanted():
    command = [program("switchyard-trainer"), "bench", "--model-config", "some-model"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 66 and '--model-config is "some-model"' in refused.stderr
    assert "path of a config.json" in refused.stderr


def test_a_checkpoint_benchmark_saves_loads_and_leaves_nothing(tiny, tmp_path):
    command = [program("switchyard-trainer"), "bench", "--model-config", tiny.model, "--ranks", "2", "--expert-parallel", "2",
               "--sequence-length", "32", "--checkpoint", tmp_path / "disk"]  # fmt: skip
    (tmp_path / "disk").mkdir()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("saved", "loaded"):
        assert re.search(rf"^{what} +\d+\.\d\d GB in \d+\.\d\d s, ", done.stdout, re.MULTILINE), done.stdout
    assert not list((tmp_path / "disk").iterdir())
    (tmp_path / "disk" / "bench-checkpoint").mkdir()
    refused = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode != 0 and f"{tmp_path}/disk/bench-checkpoint exists; remove it" in refused.stderr
