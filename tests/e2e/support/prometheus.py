"""A real Prometheus that scrapes what a test runs."""

import json
import math
import os
import pathlib
import shutil
import time
import urllib.parse
import urllib.request

import yaml

from .processes import Daemon, free_port, wait_until

ROOT = pathlib.Path(os.environ.get("SWITCHYARD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[3]))
VENV = pathlib.Path(os.environ.get("SWITCHYARD_VENV", ROOT / ".venv"))
MONITORING = ROOT / "deploy/monitoring"


class Prometheus:
    """A Prometheus with a configuration that we ship, but targets of a test and a second between scrapes."""

    def __init__(self, directory, shipped, targets):
        """`targets`: the addresses of each scrape job. Relative paths of the configuration are below `directory`."""
        directory.mkdir(exist_ok=True)
        config = yaml.safe_load(shipped.read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": targets[job["job_name"]]}]
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
