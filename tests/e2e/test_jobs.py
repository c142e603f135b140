"""Whole jobs with real programs: the demo in small, queueing, cancelling, pausing, and the API by reflection."""

import os
import pathlib
import re

import pytest
from support import inputs
from support.api import ApiError
from support.cluster import JOBS
from support.processes import wait_until
from transformers import AutoModelForCausalLM, AutoTokenizer

LONG = 20000  # steps: does not end by itself within a test


def assert_no_trainers(cluster):
    wait_until(lambda: not cluster.trainers(), 15, lambda: f"no trainer left, are {cluster.trainers()}")


def slots(cluster):
    nodes = cluster.api.call("switchyard.v1.NodeService", "ListNodes")["nodes"]
    return [slot["job"] for node in nodes for slot in node["slots"]]


def test_the_demo_job_in_small_learns_and_transformers_loads_the_result(start_cluster, tiny, tmp_path):
    cluster = start_cluster(nodes=2, slots=2)
    output = tmp_path / "output"
    job = cluster.run(tiny.spec(output, steps=60, interval=20, ranks=4, expert_parallel=2))

    progress = job["progress"]
    assert int(progress["step"]) == int(progress["total_steps"]) == 60
    assert progress["eval_loss"] < progress["initial_eval_loss"] - 1.0
    assert progress["tokens_per_second"] > 0
    measured, planned = int(progress["peak_memory_bytes"]), int(job["plan"]["memory_bytes_per_rank"])
    assert abs(measured / planned - 1) <= 0.15, f"a rank used {measured} bytes where {planned} were planned"
    assert {placement["node"] for placement in job["attempts"][0]["placements"]} == {"node-0", "node-1"}
    assert len(job["attempts"]) == 1

    samples = cluster.api.call(JOBS, "QueryMetrics", name=job["name"])["samples"]
    steps = [int(sample["step"]) for sample in samples]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    assert samples[-1]["loss"] < samples[0]["loss"] - 1.0
    phases = samples[-1]["phase_seconds"]
    assert {"data", "forward", "backward", "dispatch", "combine", "reduce_gradients", "agree", "update"} == set(phases)
    assert 0 < sum(phases.values()) <= samples[-1]["step_seconds"]
    load = cluster.api.call(JOBS, "GetExpertLoad", name=job["name"])
    assert [len(layer["tokens_per_expert"]) for layer in load["layers"]] == [8, 8]

    checkpoints = cluster.api.call("switchyard.v1.CheckpointService", "ListCheckpoints", parent=job["name"])["checkpoints"]
    available = {int(c["step"]): c for c in checkpoints if c["state"] == "CHECKPOINT_STATE_AVAILABLE"}
    assert available[60]["final"] and available[60]["path"] == str(output / "final") == job["output_model"]
    assert sorted(p.name for p in (output / "checkpoints").iterdir()) == ["step-20", "step-40"]

    model = AutoModelForCausalLM.from_pretrained(output / "final")
    tokenizer = AutoTokenizer.from_pretrained(output / "final")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is a compiler?"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "It is a" in tokenizer.decode(answer[0])
    assert inputs.weights_hash(output / "final") != inputs.weights_hash(tiny.model)


def test_the_same_request_id_returns_the_first_answer(cluster, tiny, tmp_path):
    spec = tiny.spec(tmp_path / "output", steps=4)
    first = cluster.create(spec, request_id="one-request")
    again = cluster.create(spec, request_id="one-request")
    assert again["name"] == first["name"] and again["uid"] == first["uid"]
    jobs = cluster.api.call(JOBS, "ListJobs", parent="projects/-")["jobs"]
    assert [job["name"] for job in jobs] == [first["name"]]
    cluster.wait_for(first["name"], "JOB_STATE_SUCCEEDED")
    assert cluster.create(spec, request_id="one-request")["uid"] == first["uid"]


def test_validate_only_answers_with_the_plan_and_stores_nothing(cluster, tiny, tmp_path):
    job = cluster.api.call(JOBS, "CreateJob", spec=tiny.spec(tmp_path / "output"), validate_only=True)
    assert job["plan"]["feasible"] and job["plan"]["ranks"] == 2
    assert cluster.api.call(JOBS, "ListJobs", parent="projects/-")["jobs"] == []
    assert not (tmp_path / "output").exists()


def test_two_jobs_that_need_all_slots_run_one_after_the_other(cluster, tiny, tmp_path):
    first = cluster.create(tiny.spec(tmp_path / "a", name="first", steps=400))
    second = cluster.create(tiny.spec(tmp_path / "b", name="second", steps=8))
    cluster.wait_for(first["name"], "JOB_STATE_RUNNING")
    waiting = cluster.job(second["name"])
    assert waiting["state"] == "JOB_STATE_QUEUED" and waiting["queue_position"] == 1
    assert waiting["reason"]["message"]
    first = cluster.wait_for(first["name"], "JOB_STATE_SUCCEEDED")
    second = cluster.wait_for(second["name"], "JOB_STATE_SUCCEEDED")
    assert second["start_time"] >= first["attempts"][0]["end_time"]
    assert slots(cluster) == ["", ""]


def test_a_higher_priority_job_overtakes_in_the_queue(cluster, tiny, tmp_path):
    cluster.create(tiny.spec(tmp_path / "a", name="running", steps=LONG))
    cluster.wait_for("projects/default/jobs/running", "JOB_STATE_RUNNING")
    cluster.create(tiny.spec(tmp_path / "b", name="usual", steps=4))
    cluster.create({**tiny.spec(tmp_path / "c", name="urgent", steps=4), "priority": 10})

    def positions():
        return [cluster.job(f"projects/default/jobs/{job}")["queue_position"] for job in ("urgent", "usual")]

    wait_until(lambda: positions() == [1, 2], 10, lambda: f"urgent before usual, are {positions()}")
    for job in ("running", "usual", "urgent"):
        cluster.api.call(JOBS, "CancelJob", name=f"projects/default/jobs/{job}")
        cluster.wait_for(f"projects/default/jobs/{job}", "JOB_STATE_CANCELLED")


def test_cancel_ends_every_process_and_frees_the_slots(cluster, tiny, tmp_path):
    name = cluster.create(tiny.spec(tmp_path / "output", steps=LONG))["name"]
    cluster.wait_for(name, "JOB_STATE_RUNNING")
    assert len(cluster.trainers()) == 2
    for _ in range(2):  # idempotent
        cluster.api.call(JOBS, "CancelJob", name=name)
    job = cluster.wait_for(name, "JOB_STATE_CANCELLED")
    assert job["terminal"]
    assert_no_trainers(cluster)
    assert slots(cluster) == ["", ""]
    with pytest.raises(ApiError) as error:
        cluster.api.call(JOBS, "PauseJob", name=name)
    assert error.value.code == "FAILED_PRECONDITION" and "CANCELLED" in error.value.message


def test_a_deleted_job_leaves_no_process_and_is_forgotten(cluster, tiny, tmp_path):
    name = cluster.create(tiny.spec(tmp_path / "output", steps=LONG))["name"]
    cluster.wait_for(name, "JOB_STATE_RUNNING")
    cluster.api.call(JOBS, "DeleteJob", name=name)

    def forgotten():
        try:
            cluster.job(name)
        except ApiError as error:
            return error.code == "NOT_FOUND"
        return False

    wait_until(forgotten, 30, lambda: f"{name} forgotten, is {cluster.job(name)}")
    assert_no_trainers(cluster)


def test_pause_gives_the_slots_back_and_resume_ends_with_the_same_bytes(cluster, tiny, tmp_path):
    cluster.run(tiny.spec(tmp_path / "whole", name="whole", steps=1000, interval=0))

    name = cluster.create(tiny.spec(tmp_path / "paused", name="paused", steps=1000, interval=0))["name"]
    wait_until(lambda: int((cluster.job(name).get("progress") or {}).get("step", 0)) >= 5, 60, "five steps")
    cluster.api.call(JOBS, "PauseJob", name=name)
    paused = cluster.wait_for(name, "JOB_STATE_PAUSED")
    assert 5 <= int(paused["progress"]["checkpoint_step"]) < 1000
    assert_no_trainers(cluster)
    assert slots(cluster) == ["", ""]

    cluster.api.call(JOBS, "ResumeJob", name=name)
    job = cluster.wait_for(name, "JOB_STATE_SUCCEEDED")
    assert len(job["attempts"]) == 2
    assert job["attempts"][1]["resumed_from_step"] == paused["progress"]["checkpoint_step"]
    assert inputs.weights_hash(tmp_path / "paused/final") == inputs.weights_hash(tmp_path / "whole/final")


def test_a_stopped_agent_comes_back_and_serves_jobs(cluster, tiny, tmp_path):
    assert cluster.agents["node-0"].stop() == 0
    cluster.start_agent("node-0")
    cluster.wait_for_nodes(1)
    cluster.run(tiny.spec(tmp_path / "output", steps=4))


def test_a_watcher_sees_every_step_of_its_job_across_a_reconnect(cluster, tiny, tmp_path):
    name = cluster.create(tiny.spec(tmp_path / "output", steps=30))["name"]
    token, states, complete = "", [], False
    while not states or states[-1] != "JOB_STATE_SUCCEEDED":
        for count, update in enumerate(cluster.api.stream(JOBS, "WatchJobs", parent=name, resume_token=token)):
            token = update["resume_token"]
            complete = complete or update.get("bookmark", {}).get("snapshot_complete", False)
            if "job" in update:
                states.append(update["job"]["state"])
            if count >= 10 or states and states[-1] == "JOB_STATE_SUCCEEDED":
                break  # hangs up in the middle, and goes on with the token
    assert complete
    order = [state for state, before in zip(states, [None, *states], strict=False) if state != before]
    expected = ["QUEUED", "RESERVED", "LAUNCHING", "RUNNING", "SUCCEEDED"]
    assert [state.removeprefix("JOB_STATE_") for state in order] == expected[-len(order) :]


def test_a_client_that_knows_only_reflection_finds_everything(cluster):
    services = cluster.api.services()
    for service in ("JobService", "CheckpointService", "NodeService"):
        assert f"switchyard.v1.{service}" in services
    assert "grpc.health.v1.Health" in services
    assert {"CreateJob", "PlanJob", "WatchJobs", "StreamLogs"} <= set(cluster.api.methods(JOBS))
    node = cluster.api.call("switchyard.v1.NodeService", "GetNode", name="nodes/node-0")
    assert [slot["device"] for slot in node["slots"]] == ["cpu", "cpu"] and node["memory_domain"]


def test_errors_name_every_violation_with_field_value_and_fix(cluster, tiny, tmp_path):
    spec = tiny.spec(tmp_path / "output", ranks=3, expert_parallel=2, learning_rate=-1)
    spec["data"]["train"] = "relative/path.jsonl"
    with pytest.raises(ApiError) as error:
        cluster.api.call(JOBS, "CreateJob", spec=spec)
    assert error.value.code == "INVALID_ARGUMENT"
    fields = {v["field"].removeprefix("spec."): v["description"] for v in error.value.details["BadRequest"]["field_violations"]}
    assert {"data.train", "training.learning_rate", "mesh.expert_parallel"} <= fields.keys()
    assert "-1" in fields["training.learning_rate"] and "relative/path.jsonl" in fields["data.train"]
    assert error.value.details["ErrorInfo"]["domain"] == "switchyard"

    with pytest.raises(ApiError) as error:
        cluster.job("projects/default/jobs/nobody")
    assert error.value.code == "NOT_FOUND"
    assert error.value.details["ResourceInfo"]["resource_name"] == "projects/default/jobs/nobody"


def test_a_job_with_too_few_slots_is_refused_with_the_nearest_plan(cluster, tiny, tmp_path):
    plan = cluster.api.call(JOBS, "PlanJob", spec=tiny.spec(tmp_path / "output", ranks=4, expert_parallel=4))["plan"]
    assert not plan["feasible"]
    assert any("4" in problem and "2" in problem for problem in plan["problems"]), plan["problems"]


def test_metrics_are_there_while_a_job_runs_and_gone_afterwards(cluster, tiny, tmp_path):
    name = cluster.create(tiny.spec(tmp_path / "output", steps=LONG))["name"]
    wait_until(lambda: int((cluster.job(name).get("progress") or {}).get("step", 0)) >= 5, 60, "five steps")
    wait_until(lambda: re.search(r'^switchyard_\w+\{[^}]*tiny[^}]*\} \d', cluster.metrics(), re.M), 15, "series of the job")
    assert re.search(r"^switchyard_\w+ ?", cluster.metrics(cluster.agent_metrics["node-0"]), re.M)
    cluster.api.call(JOBS, "CancelJob", name=name)
    cluster.wait_for(name, "JOB_STATE_CANCELLED")
    assert re.search(r'job="tiny"', cluster.metrics()), "the series stay a while after the end, so that a scrape sees it"
    cluster.api.call(JOBS, "DeleteJob", name=name)
    wait_until(lambda: not re.search(r"\{[^}]*tiny[^}]*\}", cluster.metrics()), 60, "series of the job removed")


def test_the_cli_submits_watches_and_reports(cluster, tiny, tmp_path):
    spec = tmp_path / "job.yaml"
    spec.write_text(
        f"""name: by-hand
model: {tiny.model}
data: {{train: {tiny.train}, eval: {tiny.eval}, sequence_length: 64}}
training: {{steps: 12, global_batch_sequences: 8, learning_rate: 3.0e-3}}
mesh: {{device: cpu, ranks: 2, expert_parallel: 2}}
checkpoint: {{output: {tmp_path / "output"}, interval_steps: 6}}
"""
    )
    assert "expert" in cluster.cli("plan", spec).stdout
    watched = cluster.cli("submit", "--watch", spec).stdout
    assert "12" in watched and "\r" not in watched and "\x1b[" not in watched  # a pipe gets plain lines
    job = cluster.cli_json("get", "by-hand")
    cluster.uids.add(job["uid"])
    assert job["state"] == "JOB_STATE_SUCCEEDED" and job["output_model"] == str(tmp_path / "output/final")
    assert cluster.cli("logs", "by-hand").stdout
    assert "by-hand" in cluster.cli("jobs").stdout
    cluster.cli("report", "by-hand", "--file", tmp_path / "report.html")
    assert "<html" in pathlib.Path(tmp_path / "report.html").read_text()


def test_a_second_job_on_the_same_data_does_not_prepare_it_again(start_cluster, tiny, tmp_path):
    cluster = start_cluster(nodes=1, slots=2)
    prepared = {}
    for name in ("first", "second"):
        job = cluster.run(tiny.spec(tmp_path / name, steps=2, interval=0, ranks=2))
        prepared[name] = [e["message"] for e in cluster.events(job["name"]) if e["type"] == "DataPrepared"]
    assert "(reused)" not in prepared["first"][0] and "(reused)" in prepared["second"][0], prepared
    directories = [next(d for d in (tmp_path / name / "data").iterdir()) for name in prepared]
    assert directories[0].name == directories[1].name
    files = [{f.relative_to(d): f.read_bytes() for f in d.rglob("*") if f.is_file()} for d in directories]
    assert files[0] == files[1] and len(files[0]) >= 2


def test_outputs_are_the_users_and_what_the_daemons_keep_is_nobody_elses(cluster, tiny, tmp_path):
    cluster.run(tiny.spec(tmp_path / "output", steps=2, interval=0))
    umask = os.umask(0)
    os.umask(umask)
    final = tmp_path / "output/final"
    modes = {path: path.stat().st_mode & 0o044 for path in (final, *final.rglob("*"))}
    assert len(modes) > 4 and set(modes.values()) == {0o044 & ~umask}, modes
    kept = {name: (cluster.directory / name).stat().st_mode & 0o777 for name in ("coordinator", "node-0", "node-0/attempts")}
    assert set(kept.values()) == {0o700}, kept
