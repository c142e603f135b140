#!/usr/bin/env python3
"""Runs jobs in a real Slurm cluster on this machine: slurmctld, three slurmd, munge, and a coordinator with --slurm.

Shows a gang over two nodes, a coordinator that is killed and adopts what runs, an attempt that is begun anew after its
agent was killed, cancelling of what still waits, and that attempts which are over are ended. Needs root (namespaces of its own: nothing
is left, no port is taken) and Debian's slurmctld, slurmd, slurm-client and munge.

    tests/deploy/slurm_cluster.py [--programs DIR]     default: build/bin
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
sys.path[:0] = [str(HERE), str(SOURCE / "tests" / "e2e")]
import tiny_job  # noqa: E402
from bare_root import need, say  # noqa: E402
from waiting import wait, wait_for_state  # noqa: E402

INSIDE = "SWITCHYARD_INSIDE_NAMESPACES"
NODES = 3
JOBS = "switchyard.v1.JobService"

SLURM_CONF = """
ClusterName=trial
SlurmctldHost=localhost
SlurmctldPort=6817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
NodeName=n[1-{nodes}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[17001-1700{nodes}] CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=01:00:00 State=UP
"""


class Cluster:
    """Slurm and the coordinator; everything lives in one directory and in this process's namespaces."""

    def __init__(self, root, programs):
        self.root, self.programs = root, programs
        self.daemons = {}
        self.address = "127.0.0.1:7070"
        for name in ("state", "logs", *(f"spool-n{i + 1}" for i in range(NODES))):
            (root / name).mkdir()
        (root / "slurm.conf").write_text(SLURM_CONF.format(root=root, nodes=NODES))
        os.environ["SLURM_CONF"] = str(root / "slurm.conf")
        (root / "munge.key").write_bytes(os.urandom(1024))
        (root / "munge.key").chmod(0o400)
        (root / "slurm.json").write_text(json.dumps({
            "coordinator": self.address,
            "nodes": {"count": 2, "device": "cpu", "slots": 2, "product": "CPU", "slot_memory_gib": 1, "cpu_cores": 2,
                      "one_machine": True},
            "agent": str(programs / "switchyard-agent"),
            "work_dir": str(root / "agents"),
            "log_dir": str(root / "logs"),
            # Agents of a checkout find data preparation by themselves; Slurm's tools need this file of their own.
            "sbatch_arguments": ["--export=PATH,HOME,USER,LANG,SLURM_CONF", "--time=30"],
            "poll_seconds": 1,
        }))  # fmt: skip

    def start(self, name, *command):
        """Starts a daemon with its output in a log."""
        with (self.root / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start_slurm(self):
        """munged, slurmctld and the slurmd of every node."""
        root = self.root
        self.start("munged", "munged", "--foreground", "--force", f"--key-file={root}/munge.key",
                   f"--socket={root}/munge.socket", f"--pid-file={root}/munge.pid", f"--seed-file={root}/munge.seed",
                   f"--log-file={root}/munge.log")  # fmt: skip
        wait((root / "munge.socket").exists, 10, "munge's socket")
        self.start("slurmctld", "slurmctld", "-D")
        for i in range(NODES):
            self.start(f"slurmd-n{i + 1}", "slurmd", "-D", "-N", f"n{i + 1}")

        def idle():
            done = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True, check=False)
            return done.stdout.split() == ["idle"] * NODES

        wait(idle, 60, self.logs)

    def start_coordinator(self):
        """The coordinator, until its port answers."""
        from support.api import Api

        self.start("coordinator", self.programs / "switchyard-coordinator", "--listen", self.address, "--metrics", "off",
                   "--state-dir", self.root / "coordinator", "--slurm", self.root / "slurm.json")  # fmt: skip

        def healthy():
            assert self.daemons["coordinator"].poll() is None, self.logs()
            api = Api(self.address)
            return api if api.healthy() else None

        self.api = wait(healthy, 20, self.logs)

    def logs(self):
        """The ends of all logs."""
        files = [*self.root.glob("*.out"), *self.root.glob("*.log"), *self.root.glob("logs/*")]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def jobs(self):
        """What squeue shows: (id, state, nodes, name) by job, ended ones too."""
        text = subprocess.run(["squeue", "-h", "--states=all", "-o", "%i|%T|%N|%j"], capture_output=True, text=True, check=True)
        return sorted((tuple(line.split("|")) for line in text.stdout.split()), key=lambda job: int(job[0]))

    def alive(self):
        """Those of them that have not ended."""
        return [job for job in self.jobs() if job[1] in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING")]

    def create(self, spec):
        """Creates a job and returns it."""
        return self.api.call(JOBS, "CreateJob", spec=spec)

    def job(self, name):
        """A job as it is now."""
        return self.api.call(JOBS, "GetJob", name=name)

    def until(self, name, *states, seconds=180):
        """Waits for a state; another end is an error."""
        return wait_for_state(self, name, states, seconds)


def agents_of(uid):
    """Ids of the agents of a job."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_text().split("\0")
            if words[0].endswith("switchyard-agent") and any(f"{uid}-e" in word for word in words):
                found.append(int(directory.name))
    return sorted(found)


def run(cluster, tiny):
    """The scenes."""
    say("== a gang of four ranks on two nodes")
    job = cluster.create(tiny("gang"))
    done = cluster.until(job["name"], "JOB_STATE_SUCCEEDED")
    placed = sorted({placement["node"] for placement in done["attempts"][0]["placements"]})
    assert placed == [f"{job['uid']}-e1-0", f"{job['uid']}-e1-1"], placed
    wait(lambda: not cluster.alive(), 30, lambda: f"the Slurm job to end: {cluster.jobs()}")
    (identifier, state, nodes, name), = cluster.jobs()
    assert state == "COMPLETED" and name.endswith(f"-{job['uid']}-e1"), cluster.jobs()
    say(f"   Slurm job {identifier} on {nodes} is {state}; {done['output_model']}")
    assert not list((cluster.root / "agents").glob("*")), "agents that left remove their directories"
    store = name.split("-")[1]

    say("== a coordinator that is killed adopts what runs; what is over is ended")
    job = cluster.create(tiny("adopted", steps=100000, interval=50))
    cluster.until(job["name"], "JOB_STATE_RUNNING")
    before = cluster.alive()
    cluster.daemons["coordinator"].send_signal(signal.SIGKILL)
    cluster.daemons["coordinator"].wait()
    over = ["sbatch", "--parsable", "--output=/dev/null", f"--job-name=switchyard-{store}-{job['uid']}-e0"]
    stale = subprocess.run(over, input="#!/bin/sh\nsleep 600\n", capture_output=True, text=True, check=True).stdout.strip()
    cluster.start_coordinator()
    wait(lambda: dict((j[0], j[1]) for j in cluster.jobs())[stale] == "CANCELLED", 30, lambda: f"{stale}: {cluster.jobs()}")
    step = cluster.job(job["name"])["progress"]["step"]
    wait(lambda: int(cluster.job(job["name"])["progress"]["step"]) > int(step), 60, cluster.logs)
    now = cluster.job(job["name"])
    assert now["epoch"] == "1" and cluster.alive() == before, (now["epoch"], before, cluster.alive())
    say(f"   Slurm job {before[0][0]} went on as attempt 1; job {stale} of an older attempt was cancelled")

    say("== an agent is killed: the attempt is given back, the next one goes on from the checkpoint")
    wait(lambda: int(cluster.job(job["name"])["progress"]["checkpoint_step"]) >= 50, 120, cluster.logs)
    os.kill(agents_of(job["uid"])[0], signal.SIGKILL)
    wait(lambda: cluster.job(job["name"])["epoch"] == "2", 60, cluster.logs)
    now = cluster.until(job["name"], "JOB_STATE_RUNNING")
    assert int(now["attempts"][1]["resumed_from_step"]) >= 50, now
    say(f"   attempt 1: {now['attempts'][0]['outcome']['code']}; attempt 2 runs from step {now['attempts'][1]['resumed_from_step']}")
    first = dict((j[3], j[1]) for j in cluster.jobs())[before[0][3]]
    assert first in ("CANCELLED", "FAILED", "COMPLETING"), first

    say("== scancel by hand is final, until retry")
    subprocess.run(["scancel", cluster.alive()[-1][0]], check=True)
    ended = wait(lambda: cluster.job(job["name"])["terminal"] and cluster.job(job["name"]), 90, cluster.logs)
    say(f"   {ended['state']}: {ended['reason']['message']}")
    assert not agents_of(job["uid"])

    say("== cancelling what still waits in Slurm's queue")
    subprocess.run(["scontrol", "update", f"nodename=n[1-{NODES}]", "state=drain", "reason=trial"], check=True)
    job = cluster.create(tiny("waiting"))
    waits = wait(lambda: "Slurm job" in cluster.job(job["name"])["reason"]["message"] and cluster.job(job["name"]), 30, cluster.logs)
    say(f"   {waits['state']}: {waits['reason']['message']}")
    cluster.api.call(JOBS, "CancelJob", name=job["name"])
    cluster.until(job["name"], "JOB_STATE_CANCELLED", seconds=30)
    wait(lambda: not cluster.alive(), 30, lambda: f"nothing in the queue: {cluster.jobs()}")
    for line in cluster.jobs():
        say("   " + " ".join(line))


def main():
    """Enters namespaces of its own, then plays the scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, default=SOURCE / "build" / "bin", help="directory of the programs")
    programs = parser.parse_args().programs.resolve()
    need(("slurmctld", "slurmctld"), ("slurmd", "slurmd"), ("sbatch", "slurm-client"), ("munged", "munge"), ("ip", "iproute2"))
    if INSIDE not in os.environ:
        # Slurm's daemons want an address that is not loopback to exist.
        inside = 'ip link set lo up && ip address add 10.99.0.1/32 dev lo && hostname localhost && exec "$0" "$@"'
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "--mount-proc",
                              "sh", "-c", inside, sys.executable, *sys.argv])  # fmt: skip
    root = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-slurm."))
    try:
        tiny_job.write_inputs(root)
        cluster = Cluster(root, programs)
        say("== Slurm")
        cluster.start_slurm()
        cluster.start_coordinator()
        run(cluster, functools.partial(tiny_job.spec, root, ranks=4))
        say("== all is well")
    finally:
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            if int(process.name) not in (1, os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
