"""SIGKILL of each kind of process in each phase: the job ends with the bytes of one that was never interrupted."""

import os
import signal

import pytest
from support import inputs
from support.cluster import Cluster
from support.processes import wait_until

STEPS, INTERVAL = 500, 80


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
    """Hash of the weights that the job ends with when nothing happens to it."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    cluster = Cluster(directory)
    try:
        job = cluster.run(tiny.spec(directory / "output", steps=STEPS, interval=INTERVAL))
        assert len(job["attempts"]) == 1
        return inputs.weights_hash(directory / "output/final")
    finally:
        cluster.close()


def step_of(job):
    return int((job.get("progress") or {}).get("step", 0))


def one_of(processes):
    """Returns a condition that gives the last of the processes once there are any."""
    return lambda cluster, name: (processes(cluster) or [None])[-1]


def trainer_in(phase, after_step=0):
    """Returns a condition that gives a trainer once the job is in the phase (and past a step)."""

    def condition(cluster, name):
        job = cluster.job(name)
        if job["phase"] == f"JOB_PHASE_{phase}" and step_of(job) >= after_step and cluster.trainers():
            return cluster.trainers()[-1]
        return None

    return condition


def strike(cluster, name, condition):
    """Kills the process that the condition names, as soon as it names one."""
    pid = wait_until(lambda: condition(cluster, name), 60, lambda: f"something to kill\n{cluster.logs()}", 0.003)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pytest.fail(f"process {pid} ended before it could be killed")


@pytest.mark.parametrize(
    ("phase", "condition", "changes"),
    [
        ("preparing data", one_of(lambda cluster: cluster.preparations()), {}),
        ("loading", one_of(lambda cluster: cluster.trainers()), {}),
        ("training", trainer_in("TRAINING", after_step=INTERVAL + 5), {}),
        ("evaluating", trainer_in("EVALUATING"), {"eval_examples": 6000}),
        ("saving", trainer_in("SAVING", after_step=3), {"interval": 1}),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_job_survives_the_death_of_a_process_while(cluster, tiny, tmp_path, uninterrupted, phase, condition, changes):
    spec = tiny.spec(tmp_path / "output", steps=STEPS, interval=changes.get("interval", INTERVAL))
    if "eval_examples" in changes:  # long enough to be met in the act
        spec["data"]["eval"] = str(tmp_path / "long.jsonl")
        inputs.write_data(tmp_path / "long.jsonl", changes["eval_examples"], seed=3)
    name = cluster.create(spec)["name"]
    strike(cluster, name, condition)
    job = cluster.wait_for(name, "JOB_STATE_SUCCEEDED", timeout=180)
    assert len(job["attempts"]) == 2, f"killed while {phase}: {job['attempts']}"
    assert job["attempts"][0]["outcome"]["code"]
    assert inputs.weights_hash(tmp_path / "output/final") == uninterrupted


def test_trainers_die_with_their_agent_and_the_job_goes_on_with_the_next_one(cluster, tiny, tmp_path, uninterrupted):
    name = cluster.create(tiny.spec(tmp_path / "output", steps=STEPS, interval=INTERVAL))["name"]
    wait_until(lambda: step_of(cluster.job(name)) > INTERVAL, 90, lambda: f"a checkpoint\n{cluster.logs()}")
    trainers = cluster.trainers()
    assert len(trainers) == 2
    cluster.agents["node-0"].kill()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in trainers), 10, "trainers gone with their agent")
    cluster.start_agent("node-0")
    job = cluster.wait_for(name, "JOB_STATE_SUCCEEDED", timeout=180)
    assert len(job["attempts"]) == 2 and int(job["attempts"][1]["resumed_from_step"]) >= INTERVAL
    assert inputs.weights_hash(tmp_path / "output/final") == uninterrupted


@pytest.mark.parametrize(
    ("moment", "interval"), [("TRAINING", INTERVAL), ("SAVING", 1)], ids=["while-training", "during-a-checkpoint-commit"]
)
def test_a_job_does_not_notice_that_the_coordinator_died(cluster, tiny, tmp_path, uninterrupted, moment, interval):
    name = cluster.create(tiny.spec(tmp_path / "output", steps=STEPS, interval=interval))["name"]

    def met():
        job = cluster.job(name)
        return job["phase"] == f"JOB_PHASE_{moment}" and step_of(job) >= 3

    wait_until(met, 90, lambda: f"{moment}\n{cluster.logs()}", 0.003)
    trainers = cluster.trainers()
    cluster.coordinator.kill()
    cluster.start_coordinator()
    job = cluster.wait_for(name, "JOB_STATE_SUCCEEDED", timeout=180)
    assert len(job["attempts"]) == 1 and job["epoch"] == job["attempts"][0]["epoch"]
    assert len(trainers) == 2
    assert inputs.weights_hash(tmp_path / "output/final") == uninterrupted


def test_a_job_ends_well_when_coordinator_and_agent_die_together(cluster, tiny, tmp_path, uninterrupted):
    name = cluster.create(tiny.spec(tmp_path / "output", steps=STEPS, interval=INTERVAL))["name"]
    wait_until(lambda: step_of(cluster.job(name)) > INTERVAL, 90, lambda: f"a checkpoint\n{cluster.logs()}")
    cluster.coordinator.kill()
    cluster.agents["node-0"].kill()
    cluster.start_coordinator()
    cluster.start_agent("node-0")
    job = cluster.wait_for(name, "JOB_STATE_SUCCEEDED", timeout=180)
    assert len(job["attempts"]) == 2
    assert inputs.weights_hash(tmp_path / "output/final") == uninterrupted


def test_a_job_that_fails_by_its_own_fault_stops_with_the_reason(cluster, tiny, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"messages": [{"role": "user", "content": "no answer"}]}\nnot json\n')
    spec = tiny.spec(tmp_path / "output", name="broken")
    spec["data"]["train"] = str(broken)
    name = cluster.create(spec)["name"]
    job = wait_until(lambda: (found := cluster.job(name))["terminal"] and found, 60, "the job's end")
    assert job["state"] == "JOB_STATE_FAILED" and job["reason"]["domain"] == "FAILURE_DOMAIN_USER"
    assert "broken.jsonl" in job["reason"]["message"] and len(job["attempts"]) == 1
