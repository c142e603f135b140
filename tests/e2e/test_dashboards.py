"""Every query of every dashboard, on a real Prometheus that scrapes a real job, returns data."""

import json
import math
import os
import pathlib
import re
import shutil
import time
import urllib.parse
import urllib.request

import pytest
import yaml
from support.processes import Daemon, free_port, wait_until

ROOT = pathlib.Path(os.environ.get("SWITCHYARD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
VENV = pathlib.Path(os.environ.get("SWITCHYARD_VENV", ROOT / ".venv"))
MONITORING = ROOT / "deploy/monitoring"


class Prometheus:
    """A Prometheus with our configuration, but our ports and a second between scrapes."""

    def __init__(self, directory, coordinator_port, agent_ports):
        directory.mkdir()
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
        ports = {"switchyard-coordinator": [coordinator_port], "switchyard-agent": agent_ports}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports[job["job_name"]]]}]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        program = shutil.which("prometheus") or str(VENV / "prometheus/usr/bin/prometheus")
        self._process = Daemon(
            "prometheus",
            [program, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address={self.url.removeprefix('http://')}"],
            directory / "prometheus.log",
        )  # fmt: skip
        wait_until(self._ready, 30, lambda: f"prometheus ready\n{self._process.tail()}")

    def _ready(self):
        try:
            return urllib.request.urlopen(self.url + "/-/ready", timeout=2).status == 200
        except OSError:
            return False

    def get(self, path, **parameters):
        """Returns the data of an API call."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression):
        """Returns the finite values of the newest minute."""
        now = time.time()
        result = self.get("query_range", query=expression, start=now - 300, end=now, step="1")["result"]
        values = [float(value) for series in result for _, value in series["values"]]
        return [value for value in values if math.isfinite(value)]

    def close(self):
        """Stops it."""
        self._process.stop()


@pytest.fixture
def scrape(tmp_path):
    """Starts a Prometheus for a cluster."""
    started = []

    def start(cluster):
        started.append(Prometheus(tmp_path / "prometheus", cluster.metrics_port, list(cluster.agent_metrics.values())))
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
