"""Fixtures: a cluster for each test, one tiny model and data set for all."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from support import inputs  # noqa: E402
from support.cluster import Cluster  # noqa: E402


class Inputs:
    """Directories of the tiny model and data, and specs of jobs on them."""

    def __init__(self, directory):
        self.train, self.eval, self.model = directory / "train.jsonl", directory / "eval.jsonl", directory / "model"
        inputs.write_data(self.train, 400, seed=1)
        inputs.write_data(self.eval, 40, seed=2)
        inputs.write_model(self.model, self.train)

    def spec(self, output, name="tiny", steps=12, interval=4, ranks=2, expert_parallel=2, **training):
        """Returns the spec of a job of a few seconds."""
        return {
            "name": name,
            "model": str(self.model),
            "data": {"train": str(self.train), "eval": str(self.eval), "sequence_length": 64},
            "training": {
                "steps": str(steps),
                "global_batch_sequences": 8,
                "learning_rate": 3e-3,
                "warmup_ratio": 0.1,
                "seed": "7",
                **training,
            },
            "mesh": {"device": "cpu", "ranks": ranks, "expert_parallel": expert_parallel},
            "checkpoint": {"output": str(output), "interval_steps": str(interval), "keep": 2},
        }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Model, data and specs."""
    return Inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def start_cluster(tmp_path, request):
    """Starts clusters; at the end of the test each is closed and must leave nothing behind."""
    clusters = []

    def start(nodes=1, slots=2, coordinator_arguments=()):
        directory = tmp_path / f"cluster-{len(clusters)}"
        directory.mkdir()
        clusters.append(Cluster(directory, nodes, slots, coordinator_arguments))
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def cluster(start_cluster):
    """One node with two slots."""
    return start_cluster()
