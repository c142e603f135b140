"""A whole Switchyard on this machine: coordinator, agents and CLI, on ports and in a directory of their own."""

import json
import pathlib
import subprocess
import time
import urllib.request

from .api import Api
from .processes import Daemon, command_line, descendants, free_port, processes_naming, program, wait_until

JOBS = "switchyard.v1.JobService"
TERMINAL = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"}


class Cluster:
    """Starts, kills and starts again the programs of one installation; `close` proves that nothing is left."""

    def __init__(self, directory, nodes=1, slots=2, coordinator_arguments=()):
        self.directory = pathlib.Path(directory)
        self.port, self.metrics_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.slots = slots
        self.coordinator_arguments = coordinator_arguments
        self.coordinator, self.agents, self.agent_metrics = None, {}, {}
        self.uids = set()
        self.start_coordinator()
        self.api = Api(self.address)
        for number in range(nodes):
            self.start_agent(f"node-{number}")
        self.wait_for_nodes(nodes)

    # Programs.

    def start_coordinator(self):
        """Starts the coordinator and waits until its health service says SERVING."""
        self.coordinator = Daemon(
            "coordinator",
            [program("switchyard-coordinator"), "--listen", self.address, "--metrics", f"127.0.0.1:{self.metrics_port}",
             "--state-dir", self.directory / "coordinator", *self.coordinator_arguments],
            self.directory / "coordinator.log",
        )  # fmt: skip
        wait_until(self._healthy, 20, lambda: f"coordinator healthy\n{self.coordinator.tail()}")

    def start_agent(self, name):
        """Starts an agent (again) with the work directory it had."""
        port = self.agent_metrics[name] = free_port()
        self.agents[name] = Daemon(
            name,
            [program("switchyard-agent"), "--coordinator", self.address, "--node", name, "--cpu-slots", self.slots,
             "--metrics", f"127.0.0.1:{port}", "--work-dir", self.directory / name],
            self.directory / f"{name}.log",
        )  # fmt: skip

    def _healthy(self):
        assert self.coordinator.running(), f"the coordinator ended:\n{self.coordinator.tail()}"
        api = Api(self.address)
        try:
            return api.healthy()
        finally:
            api.close()

    def wait_for_nodes(self, count):
        """Waits until so many nodes are READY."""
        def ready():
            for agent in self.agents.values():
                assert agent.running(), f"{agent.name} ended:\n{agent.tail()}"
            nodes = self.api.call("switchyard.v1.NodeService", "ListNodes")["nodes"]
            return sum(node["state"] == "NODE_STATE_READY" for node in nodes) >= count

        wait_until(ready, 30, lambda: f"{count} nodes ready\n{self.logs()}")

    def cli(self, *arguments, check=True, timeout=120):
        """Runs the CLI and returns the finished process."""
        command = [str(program("switchyard")), "--coordinator", self.address, *map(str, arguments)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or finished.returncode == 0, f"{command}: {finished.returncode}\n{finished.stdout}{finished.stderr}"
        return finished

    def cli_json(self, *arguments):
        """Runs a CLI command with --output json and returns what it printed."""
        return json.loads(self.cli(*arguments, "--output", "json").stdout)

    def metrics(self, port=None):
        """Returns the text of /metrics of the coordinator, or of the program at `port`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port or self.metrics_port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    # Jobs.

    def create(self, spec, **request):
        """Creates a job and returns it."""
        job = self.api.call(JOBS, "CreateJob", spec=spec, **request)
        self.uids.add(job["uid"])
        return job

    def job(self, name):
        """Returns a job."""
        return self.api.call(JOBS, "GetJob", name=name)

    def wait_for(self, name, *states, timeout=120):
        """Waits until the job is in one of `states` and returns it; an unexpected end fails at once, with the logs."""
        def arrived():
            job = self.job(name)
            if job["state"] in states:
                return job
            assert job["state"] not in TERMINAL, f"{name} is {job['state']}: {job.get('reason')}\n{self.logs()}"
            return None

        return wait_until(arrived, timeout, lambda: f"{name} in {states}, is {self.job(name)}\n{self.logs()}", 0.05)

    def run(self, spec, timeout=180):
        """Creates a job, waits until it has SUCCEEDED and returns it."""
        return self.wait_for(self.create(spec)["name"], "JOB_STATE_SUCCEEDED", timeout=timeout)

    def events(self, name):
        """Returns the job's events, oldest first."""
        return self.api.call(JOBS, "ListEvents", parent=name, page_size=1000)["events"]

    def trainers(self, node=None):
        """Returns the ids of the trainer processes below the agents."""
        agents = [self.agents[node]] if node else self.agents.values()
        found = [pid for agent in agents for pid in descendants(agent.pid)]
        return [pid for pid in found if "switchyard-trainer" in command_line(pid)[0]]

    def preparations(self):
        """Returns the ids of data preparation processes below the agents."""
        found = [pid for agent in self.agents.values() for pid in descendants(agent.pid)]
        return [pid for pid in found if any("prepare_data" in argument for argument in command_line(pid))]

    # The end.

    def logs(self):
        """Returns the ends of all logs."""
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}" for log in self._log_files())

    def _log_files(self):
        return sorted(self.directory.glob("*.log"))

    def close(self):
        """Stops everything and fails if a process or a shared-memory segment is left."""
        self.api.close()
        problems = []
        for daemon in [*self.agents.values(), self.coordinator]:
            try:
                status = daemon.stop()
                if status not in (0, -9):  # -9: the test killed it
                    problems.append(f"{daemon.name} ended with {status}:\n{daemon.tail()}")
            except AssertionError as error:
                problems.append(str(error))
        left = {}
        for _ in range(50):
            left = processes_naming(str(self.directory))
            if not left:
                break
            time.sleep(0.1)
        for pid, arguments in left.items():
            problems.append(f"process {pid} is left: {' '.join(arguments)[:300]}")
            subprocess.run(["kill", "-KILL", str(pid)], check=False)
        for uid in self.uids:
            problems += [f"/dev/shm/{path.name} is left" for path in pathlib.Path("/dev/shm").glob(f"*{uid}*")]
        assert not problems, "\n".join(problems)
