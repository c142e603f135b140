#!/usr/bin/env python3
"""Runs jobs in a real Kubernetes control plane on this machine: API server, controllers, scheduler, and deploy/kubernetes.

Installs the single-node overlay as docs/operations.md says, on nodes whose kubelets are a stand-in (stand_in_kubelet.py),
and shows a gang over two nodes, rights, a coordinator killed before it heard that its Job was made, an API server that
crashes, a name that is taken, tokens and certificates that rotate, pods that are taken away, a machine without power,
cancelling, and GPUs that are asked for. Needs root (namespaces of its own: nothing is left, no port is taken) and, the
first time, a network and dpkg-dev to build the control plane.

    tests/deploy/kubernetes_cluster.py [--programs DIR]     default: build/bin
"""

import argparse
import contextlib
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
import kubernetes_scenes  # noqa: E402
from bare_root import need, say  # noqa: E402
from held_proxy import HeldProxy  # noqa: E402
from kubernetes_api import NAMESPACE, KubernetesApi, path_of  # noqa: E402
from kubernetes_control_plane import ADDRESS, PORT, ControlPlane  # noqa: E402
from kubernetes_programs import find_kubectl, programs  # noqa: E402
from stand_in_kubelet import Kubelets  # noqa: E402
from waiting import wait, wait_for_state  # noqa: E402

INSIDE = "SWITCHYARD_INSIDE_NAMESPACES"
ACCOUNT = "switchyard-coordinator"
PROXY_PORT = 6444
USER = 10001
# Room for the coordinator, the keeper and one pod of an attempt each.
CPU_NODE = {"cpu": "3", "memory": "16Gi", "pods": "20"}
# Opened for its scene only, and no pod is started there.
GPU_NODE = {"cpu": "128", "memory": "512Gi", "pods": "20", "nvidia.com/gpu": "8"}


class Cluster:
    """Kubernetes with Switchyard in it; everything lives in one directory and in this process's namespaces."""

    def __init__(self, root, built):
        self.root, self.programs = root, built
        self.plane = ControlPlane(root, programs(), built, f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}")
        self.api = self.plane.api
        self.token_number, self._tokens = 0, {}
        self.sec = root / "SEC"
        self.environment = {"PATH": os.environ["PATH"], "SWITCHYARD_COORDINATOR": "localhost:7070",
                            "SWITCHYARD_CA": str(self.sec / "ca.crt"), "SWITCHYARD_TOKEN_FILE": str(self.sec / "admin.token")}  # fmt: skip

    def start(self):
        """Control plane, nodes, volumes."""
        self.plane.start()
        self.proxy = HeldProxy("127.0.0.1", PROXY_PORT, "127.0.0.1", PORT)
        (self.root / "kubelets").mkdir()
        self.kubelets = Kubelets(self.api, self.root / "kubelets", self.programs, ADDRESS, "127.0.0.1", PROXY_PORT)
        for number in range(1, 4):
            self.kubelets.register(f"node-{number}", CPU_NODE)
        self.kubelets.register("gpu-1", GPU_NODE)
        self.kubelets.idle.add("gpu-1")
        self.kubectl("cordon", "gpu-1")
        self.kubelets.start()
        for name, size in (("state", "20Gi"), ("files", "1Ti")):
            (self.root / "volumes" / name).mkdir(parents=True)
            self.api.create("persistentvolumes", {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                         "hostPath": {"path": str(self.root / "volumes" / name)}}})  # fmt: skip

    def kubectl(self, *arguments, text=None):
        """kubectl as the administrator."""
        done = subprocess.run([find_kubectl(), f"--kubeconfig={self.plane.kubeconfig}", *map(str, arguments)], input=text,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}\n{done.stdout}"
        return done.stdout

    def install(self):
        """The commands of docs/operations.md, in its words; those for people are left out, and what needs Prometheus' operator."""
        text = (SOURCE / "docs/operations.md").read_text()
        blocks = text[text.index("### Install", text.index("\n## Kubernetes")) :].split("```")[1:4:2]
        trial = self.overlay("trial")
        for command in "\n".join(blocks).replace("\\\n", " ").splitlines():
            command = " ".join(command.partition("#")[0].split())
            if not command or command.startswith("export") or "port-forward" in command or "-k deploy/kubernetes/monitoring" in command:
                continue
            say(f"   $ {command}")
            self.run(command.replace("=5m", "=90s").replace("-k deploy/kubernetes/gpu-nodes", f"-k {trial}"))

    def run(self, command):
        """A line of shell, as an administrator types it at the root of the sources."""
        binaries = self.root / "bin"
        if not binaries.exists():
            binaries.mkdir()
            for name in ("switchyard", "switchyard-coordinator"):
                (binaries / name).symlink_to(self.programs / name)
            (binaries / "kubectl").symlink_to(find_kubectl())
        path = f"{binaries}:{os.environ['PATH']}"
        environment = {**os.environ, **self.environment, "PATH": path, "KUBECONFIG": str(self.plane.kubeconfig)}
        command = command.replace(" deploy/kubernetes/", f" {SOURCE}/deploy/kubernetes/")
        done = subprocess.run(command, shell=True, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.logs()}"

    def overlay(self, name):
        """Single-node with CPU nodes of this machine in its launcher's file, as a kustomization of its own."""
        shipped = json.loads((SOURCE / "deploy/kubernetes/single-node/kubernetes.json").read_text())
        shipped |= {"keep_finished_seconds": 2, "poll_seconds": 1, "grace_seconds": 20, "start_seconds": 60}
        shipped["nodes"] = {"count": 3, "device": "cpu", "slots": 2, "product": "CPU", "slot_memory_gib": 1, "cpu_cores": 2,
                            "one_machine": True}  # fmt: skip
        del shipped["metrics"]  # pods share this machine's ports
        directory = self.root / name
        directory.mkdir(exist_ok=True)
        (directory / "kubernetes.json").write_text(json.dumps(shipped))
        base = os.path.relpath(SOURCE / "deploy/kubernetes/single-node", directory)
        (directory / "kustomization.yaml").write_text(json.dumps({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": NAMESPACE, "resources": [base],
            "configMapGenerator": [{"name": "switchyard-launcher", "behavior": "merge", "files": ["kubernetes.json"]}]}))  # fmt: skip
        return directory

    def account_token(self, account=ACCOUNT):
        """A token of a service account that is good as long as the Secret of this number is there."""
        name = f"bound-{self.token_number}"
        if (account, name) in self._tokens:
            return self._tokens[account, name]
        if not self.api.get("secrets", name):
            self.api.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
            "expirationSeconds": 3600, "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": name}}}  # fmt: skip
        token = self.api.call("POST", path_of("serviceaccounts", account) + "/token", request)["status"]["token"]
        return self._tokens.setdefault((account, name), token)

    def as_coordinator(self):
        """The API with the coordinator's rights and no others."""
        return KubernetesApi(f"https://127.0.0.1:{PORT}", self.plane.authority, self.account_token())

    def switchyard(self, *arguments, text=None):
        """The CLI, as people use it; returns what it prints."""
        done = subprocess.run([self.programs / "switchyard", *map(str, arguments)], input=text, capture_output=True, text=True,
                              check=False, env=self.environment, timeout=60)  # fmt: skip
        if done.returncode != 0:
            raise AssertionError(f"switchyard {arguments}: {done.stderr}\n{self.logs()}")
        return done.stdout

    def submit(self, name, steps=12, interval=6, device="cpu", ranks=4, model="tiny"):
        """Submits a job of a tiny model and returns it."""
        spec = {
            "name": name,
            "model": f"/models/{model}",
            "data": {"train": "/data/train.jsonl", "sequence_length": 64},
            "training": {"steps": steps, "global_batch_sequences": 8, "learning_rate": 3e-3},
            "mesh": {"device": device, "ranks": ranks, "expert_parallel": 2},
            "checkpoint": {"output": f"/outputs/{name}", "interval_steps": interval},
        }
        self.switchyard("submit", "-", text=json.dumps(spec))
        return self.job(name)

    def job(self, name):
        """A job as it is now; None while the coordinator does not answer."""
        return json.loads(self.switchyard("get", name, "--output", "json"))

    def until(self, name, *states, seconds=240):
        """Waits for a state; another end is an error."""
        return wait_for_state(self, name, states, seconds)

    def lent(self, kind="jobs"):
        """Names of what the coordinator has made."""
        items = self.api.list(kind)
        return sorted(item["metadata"]["name"] for item in items if "switchyard.dev/store" in item["metadata"].get("labels", {}))

    def nothing_left(self, seconds=60):
        """Waits until no Job, pod and Service of an attempt is there."""
        wait(lambda: not any(self.lent(kind) for kind in ("jobs", "pods", "services")), seconds,
             lambda: f"nothing left of: {[self.lent(kind) for kind in ('jobs', 'pods', 'services')]}\n{self.logs()}")  # fmt: skip

    def said(self, event):
        """Lines of the coordinator's log with an event."""
        lines = (self.root / "kubelets" / "switchyard-coordinator-0.coordinator.log").read_text().splitlines()
        return [json.loads(line) for line in lines if f'"{event}"' in line]

    def kill_coordinator(self):
        """SIGKILL; the kubelet starts it again."""
        os.kill(self.kubelets.pod("switchyard-coordinator").box.pid(), signal.SIGKILL)

    def answers(self):
        """Whether the coordinator answers."""
        done = subprocess.run([self.programs / "switchyard", "whoami"], capture_output=True, check=False, env=self.environment)
        return done.returncode == 0

    def logs(self):
        """The ends of all logs."""
        text = self.plane.logs()
        for file in sorted((self.root / "kubelets").glob("*.log")):
            lines = [line for line in file.read_text(errors="replace").splitlines() if "heckpoint" not in line]
            text += f"\n--- {file.name}\n" + "\n".join(lines)[-4000:]
        return text


def main():
    """Enters namespaces of its own, then plays the scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, default=SOURCE / "build" / "bin", help="directory of the programs")
    built = parser.parse_args().programs.resolve()
    need(("unshare", "util-linux"), ("setpriv", "util-linux"), ("ip", "iproute2"), ("openssl", "openssl"))
    if not find_kubectl():
        sys.exit("error: kubectl with kustomize 5 is not here: tools/setup.sh --tests gets it")
    if INSIDE not in os.environ:
        programs()
        inside = f'ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec "$0" "$@"'
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "--mount-proc",
                              "sh", "-c", inside, sys.executable, *sys.argv])  # fmt: skip
    from support import inputs

    root = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-kubernetes."))
    root.chmod(0o755)
    cluster = None
    try:
        say("== Kubernetes")
        cluster = Cluster(root, built)
        cluster.start()
        say(f"   API server {cluster.api.call('GET', '/version')['gitVersion']}, nodes " +
            ", ".join(node["metadata"]["name"] for node in cluster.api.list("nodes")))  # fmt: skip
        files = root / "volumes" / "files"
        kubernetes_scenes.install(cluster)
        inputs.write_data(files / "data" / "train.jsonl", 300, seed=1)
        inputs.write_model(files / "models" / "tiny", files / "data" / "train.jsonl")
        inputs.write_model(files / "models" / "for-gpus", files / "data" / "train.jsonl", head_dim=32)
        subprocess.run(["chmod", "-R", "a+rX", files], check=True)
        kubernetes_scenes.play(cluster)
        say("== all is well")
    finally:
        if cluster:
            cluster.plane.stop()
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            if int(process.name) not in (1, os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
