"""A job of a few seconds for tests of installations: a tiny model, a little data and the spec."""

import json
import pathlib
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def write_inputs(directory):
    """Writes DIRECTORY/train.jsonl and DIRECTORY/model."""
    sys.path.insert(0, str(SOURCE / "tests" / "e2e"))
    from support import inputs

    inputs.write_data(directory / "train.jsonl", 300, seed=1)
    inputs.write_model(directory / "model", directory / "train.jsonl")


def spec(directory, name="tiny", ranks=2, steps=12, interval=6):
    """The spec of a job on the inputs in DIRECTORY; its output is DIRECTORY/out/NAME."""
    return {
        "name": name,
        "model": f"{directory}/model",
        "data": {"train": f"{directory}/train.jsonl", "sequence_length": 64},
        "training": {"steps": str(steps), "global_batch_sequences": 8, "learning_rate": 3e-3},
        "mesh": {"device": "cpu", "ranks": ranks, "expert_parallel": 2},
        "checkpoint": {"output": f"{directory}/out/{name}", "interval_steps": str(interval)},
    }


def write_job(directory, inside):
    """Writes the inputs and DIRECTORY/job.json; the service sees DIRECTORY as INSIDE."""
    write_inputs(directory)
    (directory / "job.json").write_text(json.dumps(spec(inside)))
