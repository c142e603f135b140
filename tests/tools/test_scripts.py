"""The shell scripts say what is wrong and what to do, before they change anything."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **environment):
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment
    )


def free_ports(count):
    """The first of so many ports in a row that nothing has, of those that the kernel gives to nobody by itself."""
    for first in range(20000, 32000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


def test_quickstart_names_a_taken_port_and_how_to_choose_another():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run("./quickstart.sh", SWITCHYARD_PORT=port, SWITCHYARD_METRICS_PORT=str(free_ports(3)))
    assert refused.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken" in refused.stderr and "SWITCHYARD_PORT=" in refused.stderr


@pytest.mark.parametrize(("fails", "shown", "other"), [("--build", "stdout", "stderr"), ("--preset", "stderr", "stdout")])
def test_quickstart_shows_the_lines_of_the_build_step_that_failed(tmp_path, fails, shown, other):
    for script in ("quickstart.sh", "tools/common.sh"):
        (tmp_path / script).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / script, tmp_path / script)
    cmake = f'[ "$1" != {fails} ] && echo "$1 done" || {{ echo "main.cc:1: error"; exit 1; }}'
    for program, body in (("tools/setup.sh", ""), (".venv/bin/cmake", cmake)):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "build").mkdir()
    ports = free_ports(4)
    refused = run(
        tmp_path / "quickstart.sh", SWITCHYARD_PORT=str(ports), SWITCHYARD_METRICS_PORT=str(ports + 1)
    )
    assert refused.returncode == 1
    assert "main.cc:1: error" in getattr(refused, shown) and "main.cc" not in getattr(refused, other)
    assert "--preset done" not in refused.stdout + refused.stderr and "lines above say why" in refused.stderr


def test_setup_refuses_unknown_arguments():
    refused = run("tools/setup.sh", "--fast")
    assert refused.returncode == 1 and "'--fast'" in refused.stderr and "usage:" in refused.stderr


def test_a_small_disk_is_named_with_what_is_needed():
    refused = run("bash", "-c", ". tools/common.sh; need_disk_gb 123456789 'Building'")
    assert refused.returncode == 1
    assert "Building needs 123456789 GB of free disk" in refused.stderr


def test_stages_print_their_times():
    done = run("bash", "-c", "set -euo pipefail; . tools/common.sh; stage One; stage Two; stages_end")
    assert done.returncode == 0
    lines = done.stdout.split("\n")
    assert "== One" in lines and any(line.endswith("s  Two") for line in lines) and lines[-2].endswith("in all")


def test_the_summary_fails_when_the_loss_did_not_fall(tmp_path):
    job = tmp_path / "job.json"
    job.write_text(
        '{"state": "JOB_STATE_SUCCEEDED", "progress": {"step": "3", "initial_eval_loss": 9.0, "eval_loss": 8.0}}'
    )
    tool = [os.environ.get("SWITCHYARD_VENV", str(ROOT / ".venv")) + "/bin/python", "tools/summarize_job.py", str(job)]
    assert run(*tool, "--minimum-fall", "0.9").returncode == 0
    refused = run(*tool, "--minimum-fall", "1.5")
    assert refused.returncode == 1 and "1.000 nats lower" in refused.stdout
