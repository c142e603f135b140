"""One trace id from a request to the trainers' lines and back in errors; and what doctor says of a real installation."""

import json

import grpc
import pytest
from support.api import ApiError
from support.cluster import JOBS
from support.processes import program, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def traced(api, method, request, metadata=(("traceparent", PARENT),)):
    """Calls with metadata and returns the answer."""
    stub, message = api._prepare(JOBS, method, request)
    return stub(message, timeout=20, metadata=metadata)


def lines(path, trace):
    """Returns the log lines with this trace id."""
    found = []
    for line in path.read_text().splitlines():
        if line.startswith("{") and trace in line:
            found.append(json.loads(line))
    return found


def test_a_trace_id_goes_from_the_request_to_the_trainers_lines(cluster, tiny, tmp_path):
    name = traced(cluster.api, "CreateJob", {"spec": tiny.spec(tmp_path / "output", steps=4)}).name
    job = cluster.wait_for(name, "JOB_STATE_SUCCEEDED")
    cluster.uids.add(job["uid"])
    assert job["trace_id"] == TRACE
    assert TRACE in cluster.cli("get", "tiny").stdout

    coordinator = lines(cluster.coordinator.log, TRACE)
    assert {"JobCreated", "JobSucceeded"} <= {line.get("type") for line in coordinator}
    assert {line["program"] for line in coordinator} == {"coordinator"}
    agent = lines(cluster.agents["node-0"].log, TRACE)
    assert {"process.started", "process.ended", "attempt.ended"} <= {line["event"] for line in agent}
    assert {(line["program"], line["node"]) for line in agent} == {("agent", "node-0")}

    def trainer_lines():
        logs = cluster.cli("logs", "tiny").stdout
        found = [json.loads(line[line.index("{") :]) for line in logs.splitlines() if "{" in line and TRACE in line]
        return [line for line in found if line.get("program") == "trainer"]

    wait_until(lambda: {line["rank"] for line in trainer_lines()} == {0, 1}, 20, lambda: cluster.cli("logs", "tiny").stdout)
    for line in trainer_lines():
        assert (line["job"], line["epoch"], line["trace_id"]) == (name, 1, TRACE)
        assert {"time", "level", "event"} <= line.keys()


def test_errors_carry_the_trace_id_that_was_sent_or_made(cluster, tiny, tmp_path):
    with pytest.raises(grpc.RpcError) as refused:
        traced(cluster.api, "GetJob", {"name": "projects/default/jobs/none"})
    assert ApiError(refused.value).details["ErrorInfo"]["metadata"]["trace_id"] == TRACE
    with pytest.raises(ApiError) as made:
        cluster.api.call(JOBS, "GetJob", name="projects/default/jobs/none")
    generated = made.value.details["ErrorInfo"]["metadata"]["trace_id"]
    assert len(generated) == 32 and generated != TRACE
    shown = cluster.cli("get", "none", "--output", "json", check=False)
    assert len(json.loads(shown.stderr)["error"]["trace_id"]) == 32


def test_doctor_finds_a_sound_installation_sound_and_names_what_is_not(cluster, tmp_path):
    arguments = ["doctor", "--http", f"127.0.0.1:{cluster.metrics_port}", "--work-dir", tmp_path, "--slots", "1"]
    checks = cluster.cli_json(*arguments)["checks"]
    found = {check["name"]: check for check in checks}
    for name in ("coordinator", "versions", "clock_skew", "nodes", "http", "trainer", "disk"):
        assert found[name]["status"] == "ok", found[name]
    assert "1 of 1 nodes are ready" in found["nodes"]["message"]
    assert found["gpu"]["status"] in ("ok", "skipped")
    text = cluster.cli(*arguments).stdout
    assert "answers at" in text and "versions" in text

    cluster.agents["node-0"].kill()
    cluster.coordinator.kill()
    broken = cluster.cli(*arguments, "--trainer", program("switchyard"), "--certificates", tmp_path, check=False)
    assert broken.returncode == 1
    assert "no coordinator answers at" in broken.stdout and "-> Start one" in broken.stdout
    assert f"{tmp_path}/" in broken.stdout  # the certificate that is not there
