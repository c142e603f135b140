"""Every query of every dashboard, on a real Prometheus that scrapes a real job, returns data."""

import json
import os
import re

import pytest
from support.processes import wait_until
from support.prometheus import MONITORING, Prometheus


@pytest.fixture
def scrape(tmp_path):
    """Starts a Prometheus for a cluster."""
    started = []

    def start(cluster):
        ports = {"switchyard-coordinator": [cluster.metrics_port], "switchyard-agent": cluster.agent_metrics.values()}
        targets = {job: [f"127.0.0.1:{port}" for port in those] for job, those in ports.items()}
        started.append(Prometheus(tmp_path / "prometheus", MONITORING / "prometheus.yml", targets))
        return started[-1]

    yield start
    for prometheus in started:
        prometheus.close()


def queries():
    """Returns {(dashboard, panel, query)} with the variables at "All", as Grafana fills them in."""
    found = set()
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                found.add((path.stem, panel["title"], re.sub(r"\$(project|job)\b", ".*", target["expr"])))
    return found


def test_every_query_of_every_dashboard_returns_data(cluster, scrape, tiny, tmp_path):
    prometheus = scrape(cluster)
    job = cluster.create(tiny.spec(tmp_path / "a", name="a", steps=20000, interval=40, eval_interval_steps="20"))
    cluster.wait_for(job["name"], "JOB_STATE_RUNNING")
    wait_until(lambda: int(cluster.job(job["name"])["progress"]["checkpoint_step"]) >= 40, 180, "a checkpoint")
    # Prometheus scrapes for the first time some seconds after it says that it is ready: a recovery before that would be no
    # increase to it.
    recoveries = 'switchyard_job_recovery_seconds_count{job="a"}'
    wait_until(lambda: prometheus.values(recoveries), 60, "the job's series")
    assert set(prometheus.values(recoveries)) == {0}
    os.kill(cluster.trainers()[0], 9)  # so that there is a recovery to show
    wait_until(lambda: cluster.job(job["name"])["epoch"] == "2", 180, lambda: f"attempt 2 of {cluster.job(job['name'])}")
    cluster.wait_for(job["name"], "JOB_STATE_RUNNING")
    other = cluster.create(tiny.spec(tmp_path / "b", name="b", steps=20000))
    wait_until(lambda: prometheus.values('switchyard_job_queue_seconds_count{job="b"}'), 20, "the waiting job's series")
    cluster.api.call("switchyard.v1.JobService", "CancelJob", name=job["name"])
    cluster.wait_for(other["name"], "JOB_STATE_RUNNING")

    missing = queries()
    assert len(missing) > 60

    def all_found():
        for query in sorted(missing):
            if prometheus.values(query[2]):
                missing.discard(query)
        return not missing

    wait_until(all_found, 180, lambda: "data for " + "\n".join(map(str, sorted(missing))), 1)
    bad = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"] if rule["health"] != "ok"]
    assert bad == []
    assert {target["health"] for target in prometheus.get("targets")["activeTargets"]} == {"up"}
