"""Runs inside a bare root, as process 1 of its own namespaces: starts units as systemd would, then runs a job.

Does by hand what the units say: user, flags from /etc/default, umask, NOTIFY_SOCKET and WATCHDOG_USEC, SIGTERM to the
main process at the end. Standard library only.
"""

import json
import os
import pathlib
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

WATCHDOG_SECONDS = 4


class Unit:
    """A service unit, run by its own words."""

    def __init__(self, name):
        self.name = name
        self.settings = {}
        for line in pathlib.Path(f"/usr/lib/systemd/system/{name}.service").read_text().splitlines():
            key, separator, value = line.partition("=")
            if separator and not line.startswith("#"):
                self.settings[key] = value
        assert self.settings["Type"] == "notify"
        self.log = pathlib.Path(f"/var/log/{name}.log")
        self.said = []
        self._heard = 0  # of `said`, by wait_for

    def start(self):
        """Starts it and waits for READY=1."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.name}")
        threading.Thread(target=self._listen, daemon=True).start()
        flags = {}
        defaults = pathlib.Path(self.settings["EnvironmentFile"].lstrip("-"))
        for line in defaults.read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                flags[key] = shlex.split(value)[0]
        command = []
        for word in shlex.split(self.settings["ExecStart"]):
            command += shlex.split(flags.get(word[1:], "")) if word.startswith("$") else [word]
        user = pwd.getpwnam(self.settings["User"])
        mask = int(self.settings["UMask"], 8)

        def become():
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.umask(mask)

        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": user.pw_dir, "USER": user.pw_name,
                       "NOTIFY_SOCKET": f"@{self.name}", "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1000000), **flags}  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, preexec_fn=become, stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, cwd="/")  # fmt: skip
        self.wait_for("READY=1", 30)
        print(f"   {self.name}: {' '.join(command)}", flush=True)

    def _listen(self):
        while True:
            self.said.append(self._socket.recv(4096).decode())

    def wait_for(self, word, seconds):
        """Waits until the unit says `word` on its socket, after what was waited for before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while self._heard < len(self.said):
                self._heard += 1
                if word in self.said[self._heard - 1]:
                    return self.said[self._heard - 1]
            time.sleep(0.05)
        raise SystemExit(f"error: {self.name} did not say {word}, only {self.said}:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        """SIGTERM to the main process, as KillMode=mixed does first; it must end well within TimeoutStopSec."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(int(self.settings["TimeoutStopSec"])) == 0, self.log.read_text()[-3000:]
        self.wait_for("STOPPING=1", 1)


def trainers():
    """Ids of trainer processes that run."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if "switchyard-trainer" in (directory / "cmdline").read_text().split("\0")[0]:
                found.append(int(directory.name))
        except OSError:
            continue
    return found


def switchyard(*arguments, check=True):
    """Runs the command line and returns what it printed."""
    done = subprocess.run(["/usr/bin/switchyard", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        logs = "".join(f"--- {log}\n{log.read_text()[-3000:]}" for log in pathlib.Path("/var/log").glob("switchyard-*.log"))
        raise SystemExit(f"error: switchyard {arguments}: {done.returncode}\n{done.stdout}{done.stderr}{logs}")
    return done.stdout


def main():
    """Starts the units, runs one job to its end, stops the agent in the middle of a second one."""
    coordinator, agent = Unit("switchyard-coordinator"), Unit("switchyard-agent")
    coordinator.start()
    agent.start()
    print("   " + agent.wait_for("STATUS=connected to", 20), flush=True)
    for unit in (coordinator, agent):
        for _ in range(2):
            unit.wait_for("WATCHDOG=1", WATCHDOG_SECONDS)
    print("   both tell the watchdog that they are alive", flush=True)

    print(switchyard("submit", "--watch", "/srv/switchyard/job.json")[-700:], flush=True)
    job = json.loads(switchyard("get", "tiny", "--output", "json"))
    assert job["state"] == "JOB_STATE_SUCCEEDED", job
    check = ("import sys, transformers; model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]); "
             "print('  ', sys.argv[1], 'loads:', model.num_parameters(), 'parameters')")  # fmt: skip
    subprocess.run(["/opt/switchyard/runtime/current/venv/bin/python", "-c", check, job["output_model"]], check=True,
                   env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip

    spec = json.loads(pathlib.Path("/srv/switchyard/job.json").read_text())
    spec["name"] = "endless"
    spec["training"]["steps"] = "100000"
    spec["checkpoint"]["output"] += "-endless"
    pathlib.Path("/tmp/endless.json").write_text(json.dumps(spec))
    switchyard("submit", "/tmp/endless.json")
    end = time.monotonic() + 120
    while len(trainers()) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    assert len(trainers()) == 2, switchyard("events", "endless")
    agent.stop()
    assert not trainers(), "trainers outlived the agent"
    print("   SIGTERM to the agent ended its two trainers too", flush=True)
    coordinator.stop()


if __name__ == "__main__":
    sys.exit(main())
