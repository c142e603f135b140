"""The cache of prepared data that jobs of one machine share."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import SOURCE

import prepare_data
from switchyard_data.cache import DataCache

FIRST, SECOND, THIRD = ("a" * 32, "b" * 32, "c" * 32)


def command(model, data, output, cache, *more):
    return ["--model", str(model), "--train", str(data), "--sequence-length", "64", "--output-dir", str(output)] + [
        "--cache-dir", str(cache), "--progress-json", *more
    ]


@pytest.fixture
def run(model, tmp_path, capsys):
    """Prepares for one output of its own; returns (result, standard error)."""

    def call(output, data, *more):
        assert prepare_data.main(command(model, data, tmp_path / output, tmp_path / "cache", *more)) == 0
        captured = capsys.readouterr()
        return json.loads(captured.out.strip().splitlines()[-1])["result"], captured.err

    return call


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"text": f"it is a thing {i}"}) + "\n" for i in range(50)))
    return path


def contents(directory):
    return {
        os.path.relpath(os.path.join(path, name), directory): open(os.path.join(path, name), "rb").read()
        for path, _, names in os.walk(directory)
        for name in names
    }


def split_of(result):
    return os.path.dirname(result["train_dir"])


def test_another_output_takes_the_same_bytes_without_preparing(run, data, tmp_path, monkeypatch):
    first, _ = run("one", data)
    assert not first["cached"]
    monkeypatch.setattr(prepare_data, "load_tokenizer", lambda model: pytest.fail("prepared again"))
    second, _ = run("two", data)
    assert second["cached"] and second["train_dir"].startswith(str(tmp_path / "two"))
    assert contents(split_of(first)) == contents(split_of(second))
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "two")
    third, _ = run("three", data)
    assert third["cached"] and [name for name in os.listdir(tmp_path / "three") if name.startswith(".")] == []


def test_what_is_already_in_the_output_reaches_the_cache(run, model, data, tmp_path, capsys):
    assert prepare_data.main(command(model, data, tmp_path / "one", "")) == 0
    capsys.readouterr()
    run("one", data)
    assert run("two", data)[0]["cached"]


def test_a_damaged_entry_is_prepared_again(run, data, tmp_path):
    first, _ = run("one", data)
    good = contents(split_of(first))
    shard = tmp_path / "cache" / os.path.basename(split_of(first)) / "train" / "tokens-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    second, _ = run("two", data)
    assert not second["cached"] and contents(split_of(second)) == good
    assert run("three", data)[0]["cached"]


@pytest.mark.parametrize("output", ["one", "two"])
def test_bad_lines_that_another_job_allowed_are_still_refused(run, model, data, tmp_path, capsys, output):
    data.write_text(data.read_text() + "no JSON\n{}\n")
    run("one", data, "--max-bad-lines", "2")
    for allowed, line in ((0, 51), (1, 52)):
        options = command(model, data, tmp_path / output, tmp_path / "cache", "--max-bad-lines", str(allowed))
        assert prepare_data.main(options) == prepare_data.EX_DATAERR
        error = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["error"]
        assert error["user_error"] and error["message"].startswith(f"{data}:{line}: ")
        assert f"(2 bad lines, {allowed} allowed; mend the file or raise data.max_bad_lines)" in error["message"]
    assert len(os.listdir(tmp_path / output)) == (1 if output == "one" else 0)
    assert run(output, data, "--max-bad-lines", "2")[0]["cached"]


def test_two_jobs_at_once_prepare_once(model, data, tmp_path):
    program = os.path.join(SOURCE, "tools", "prepare_data.py")
    jobs = [
        subprocess.Popen(
            [sys.executable, program, *command(model, data, tmp_path / name, tmp_path / "cache")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    results = [json.loads(job.communicate(timeout=120)[0].strip().splitlines()[-1])["result"] for job in jobs]
    assert sorted(result["cached"] for result in results) == [False, True]


def test_the_entry_used_longest_ago_makes_room(tmp_path, monkeypatch):
    def source(name):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "x").write_bytes(b"0" * 100)
        return tmp_path / name

    cache = DataCache(tmp_path / "cache", 250)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "of somebody else").mkdir()
    (tmp_path / "cache" / f".{THIRD}.{2**22 + 1}").mkdir()  # above every process id
    cache.put(FIRST, source("first"))
    cache.put(SECOND, source("second"))
    for age, name in ((20, FIRST), (30, SECOND)):
        os.utime(cache.entry(name), (time.time() - age,) * 2)
    assert cache.take(SECOND, str(tmp_path / "taken"))
    cache.put(THIRD, source("third"))
    kept = sorted(name for name in os.listdir(tmp_path / "cache") if not name.startswith(".lock"))
    assert kept == [SECOND, THIRD, "of somebody else"]
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=150))
        cache.put(FIRST, tmp_path / "first")
    assert not os.path.exists(cache.entry(FIRST))
    too_large = DataCache(tmp_path / "cache", 50)
    too_large.put(FIRST, tmp_path / "first")
    assert not os.path.exists(cache.entry(FIRST)) and os.path.exists(cache.entry(THIRD))


def test_a_cache_that_cannot_be_used_costs_no_job(run, data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    result, err = run("one", data)
    assert not result["cached"] and "was not used" in err
