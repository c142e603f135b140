"""Coordinator and agent with TLS are scraped with the configuration for it that is shipped."""

import subprocess

import pytest
from support.processes import Daemon, free_port, program, wait_until
from support.prometheus import MONITORING, Prometheus


class SecureCluster:
    """A coordinator and the agent of node gpu-1, set up by the commands of docs/operations.md, with TLS on all ports."""

    def __init__(self, directory):
        self.directory, self.security = directory, directory / "SEC"
        self.port, self.metrics, self.agent_metrics = free_port(), free_port(), free_port()
        self._daemons = []
        self.set_up("init", "--host", "127.0.0.1")
        self.set_up("issue-agent", "--node", "gpu-1", "--host", "127.0.0.1")
        (directory / "files").mkdir()
        roots = [text for name in ("model", "data", "output") for text in (f"--{name}-root", directory / "files")]
        self._start("coordinator", "--listen", f"127.0.0.1:{self.port}", "--metrics", f"127.0.0.1:{self.metrics}",
                    "--state-dir", directory / "state", "--security-dir", self.security, *roots)  # fmt: skip
        # An agent's /metrics has TLS where other machines reach it.
        self._start("agent", "--coordinator", f"127.0.0.1:{self.port}", "--node", "gpu-1", "--cpu-slots", 1,
                    "--metrics", f"0.0.0.0:{self.agent_metrics}", "--tls-dir", self.security / "agents/gpu-1",
                    "--work-dir", directory / "work", *roots)  # fmt: skip

    def set_up(self, command, *arguments):
        """Runs a command of switchyard-coordinator on the security directory."""
        self._run(program("switchyard-coordinator"), command, "--security-dir", self.security, *arguments)

    def cli(self, *arguments):
        """Runs the CLI with the first token."""
        self._run(program("switchyard"), "--coordinator", f"127.0.0.1:{self.port}", "--ca", self.security / "ca.crt",
                  "--token-file", self.security / "admin.token", *arguments)  # fmt: skip

    def logs(self):
        """Returns the ends of both logs."""
        return "\n".join(daemon.tail() for daemon in self._daemons)

    def close(self):
        """Stops both."""
        assert [daemon.stop() for daemon in reversed(self._daemons)] == [0, 0], self.logs()

    def _start(self, name, *arguments):
        self._daemons.append(Daemon(name, [program(f"switchyard-{name}"), *arguments], self.directory / f"{name}.log"))

    @staticmethod
    def _run(*command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.fixture
def secure(tmp_path):
    """One secure cluster."""
    cluster = SecureCluster(tmp_path)
    yield cluster
    cluster.close()


def test_both_are_scraped_by_tls_with_the_shipped_configuration(secure, tmp_path):
    home = tmp_path / "prometheus"
    secure.set_up("issue-client", "--name", "prometheus", "--out", home / "tls")
    wait_until(lambda: (secure.directory / "state/listen-address").exists(), 20, secure.logs)
    secure.cli("token", "create", "--name", "Prometheus", "--role", "viewer@*", "--out", home / "tls/prometheus.token")
    prometheus = Prometheus(home, MONITORING / "prometheus_tls.yml", {
        "switchyard-coordinator": [f"127.0.0.1:{secure.metrics}"],
        "switchyard-agent": [f"127.0.0.1:{secure.agent_metrics}"],
    })  # fmt: skip
    try:
        def scraped():
            targets = prometheus.get("targets")["activeTargets"]
            return len(targets) == 2 and all(target["health"] == "up" for target in targets)

        wait_until(scraped, 30, lambda: f"{prometheus.get('targets')['activeTargets']}\n{secure.logs()}")
        wait_until(lambda: prometheus.values("switchyard_agent_connected == 1"), 30, secure.logs)
        assert prometheus.values("switchyard_build_info")
    finally:
        prometheus.close()
