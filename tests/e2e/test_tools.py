"""Tools around the service: `switchyard data prepare`, and the benchmark from end to end. No times are asserted."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from support import inputs
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
