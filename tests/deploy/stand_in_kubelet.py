"""A stand-in for the kubelets of a cluster: whatever the scheduler binds to its nodes runs as processes of this machine.

It keeps its nodes' leases, makes the volumes of pods (Secrets and ConfigMaps follow their objects, as a kubelet's do), runs
init containers and containers, asks readiness probes, restarts what shall be restarted, ends what is deleted with its
grace, and tells the API server all of it. What it does not: images, limits, cgroups, pod networks, liveness probes.
"""

import base64
import contextlib
import datetime
import os
import pathlib
import shutil
import ssl
import threading
import time
import urllib.request

from container_box import Box
from kubernetes_api import KubernetesError, path_of

SERVICE_ACCOUNT = "kubernetes.io/service-account-token"


def now():
    """The time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_as_volume(directory, files, mode, group):
    """Replaces the files of a volume at once, the way a kubelet does: by a link to a directory of this version."""
    fresh = directory / f"..{time.monotonic_ns()}"
    fresh.mkdir(parents=True)
    for name, data in files.items():
        (fresh / name).write_bytes(data)
        (fresh / name).chmod(mode)
        os.chown(fresh / name, 0, group)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    before = (directory / "..data").resolve() if (directory / "..data").is_symlink() else None
    (directory / "..data_tmp").symlink_to(fresh.name)
    (directory / "..data_tmp").rename(directory / "..data")
    if before:
        shutil.rmtree(before, ignore_errors=True)


class Kubelets:
    """Runs pods of all nodes that are registered; a thread for each pod, and one that looks at the cluster."""

    def __init__(self, api, directory, programs, address, api_host, api_port):
        """`address` is every pod's, `api_host` and `api_port` where pods find the API server."""
        self.api, self.directory, self.programs, self.address = api, pathlib.Path(directory), programs, address
        self.environment = {"host": api_host, "port": str(api_port)}
        self.service_token = None  # (account name) -> token; None: the one that the token controller made
        self.idle = set()  # nodes whose pods are bound and never started
        self.dead = set()  # nodes that say nothing any more
        self.pods = {}  # uid -> Pod
        self._nodes = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def register(self, name, capacity):
        """A node that is ready, with this capacity."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
        self.api.create("nodes", node)
        self._nodes[name] = capacity
        self._renew(name)

    def start(self):
        """Begins to look at the cluster."""
        self._thread.start()

    def stop(self):
        """Kills what runs."""
        self._stopping.set()
        self._thread.join()
        for pod in self.pods.values():
            pod.kill()

    def kill_node(self, name):
        """Power off: what runs there is gone, and nobody tells."""
        self.dead.add(name)
        for pod in self.pods.values():
            if pod.spec["nodeName"] == name:
                pod.end(None)

    def revive_node(self, name):
        """Power on: what the API server still has of it has ended."""
        self.dead.discard(name)

    def pod(self, prefix):
        """The newest running pod whose name begins so."""
        found = [pod for pod in self.pods.values() if pod.name.startswith(prefix) and pod.box]
        return found[-1] if found else None

    def _renew(self, name):
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
        self.api.patch_status("nodes", name, {"capacity": self._nodes[name], "allocatable": self._nodes[name], "conditions": [ready]})

    def _run(self):
        renewed = 0
        while not self._stopping.wait(0.3):
            # The API server goes away now and then; that is no reason to end.
            with contextlib.suppress(OSError, KubernetesError):
                if time.monotonic() - renewed > 5:
                    renewed = time.monotonic()
                    for name in self._nodes.keys() - self.dead:
                        self._renew(name)
                self._look()

    def _look(self):
        alive = self._nodes.keys() - self.dead
        shown = {pod["metadata"]["uid"]: pod for pod in self.api.list("pods", namespace="") if "nodeName" in pod["spec"]}
        for uid, pod in shown.items():
            if pod["spec"]["nodeName"] not in alive:
                continue
            if uid not in self.pods and pod["spec"]["nodeName"] not in self.idle and pod["status"].get("phase") == "Pending":
                self.pods[uid] = Pod(self, pod)
            if "deletionTimestamp" in pod["metadata"]:
                if uid in self.pods and self.pods[uid].alive():
                    self.pods[uid].end(pod["metadata"].get("deletionGracePeriodSeconds", 30))
                else:
                    self.gone(pod)
            elif uid in self.pods:
                self.pods[uid].refresh()
        for uid in self.pods.keys() - shown.keys():
            self.pods[uid].end(0)

    def gone(self, pod):
        """Tells that nothing is left of a pod that is being deleted."""
        with contextlib.suppress(KubernetesError):
            self.api.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"], gracePeriodSeconds=0,
                            preconditions={"uid": pod["metadata"]["uid"]})  # fmt: skip


class Pod:
    """One pod that was bound."""

    def __init__(self, kubelets, pod):
        self.kubelets, self.spec, self.name, self._pod = kubelets, pod["spec"], pod["metadata"]["name"], pod
        self.namespace = pod["metadata"]["namespace"]
        self.directory = kubelets.directory / pod["metadata"]["uid"]
        self.box, self.restarts = None, 0
        self._files = {}  # volume -> what was written
        self._grace = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def alive(self):
        return self._thread.is_alive()

    def end(self, grace):
        """Ends it, once; without a grace not even a signal comes first."""
        if not self._ending.is_set():
            self._grace = grace
            self._ending.set()

    def kill(self):
        if self.box:
            self.box.kill()

    def refresh(self):
        """Writes Secrets and ConfigMaps again that have changed."""
        for name in list(self._files):
            self._volume(name)

    def _run(self):
        try:
            for container in self.spec.get("initContainers", []):
                code = self._wait(self._start(container))
                if code != 0:
                    return self._over(code, f"init container {container['name']}")
            while True:
                self.box = self._start(self.spec["containers"][0])
                self._tell("Running", {"running": {"startedAt": now()}}, ready="readinessProbe" not in self.spec["containers"][0])
                code = self._wait(self.box)
                if self._ending.is_set() or self.spec["restartPolicy"] != "Always":
                    return self._over(code, self.box.last_words())
                self.restarts += 1
                self._tell("Running", {"waiting": {"reason": "CrashLoopBackOff"}}, ready=False)
                self._ending.wait(min(10, self.restarts))
        except Exception as error:  # noqa: BLE001  (told as a kubelet would)
            self._over(255, f"{type(error).__name__}: {error}")

    def _wait(self, box):
        """Until the container ends, or is ended; asks its readiness probe meanwhile."""
        ready, told = False, None
        while box.poll() is None:
            if self._ending.is_set():
                if self._grace is not None:
                    box.terminate()
                end = time.monotonic() + (self._grace or 0)
                while box.poll() is None and time.monotonic() < end:
                    time.sleep(0.05)
                if box.poll() is None:
                    box.kill()
                break
            probe = self.spec["containers"][0].get("readinessProbe") if box is self.box else None
            if probe:
                ready = self._probe(probe["httpGet"])
                if ready != told and self._tell("Running", {"running": {"startedAt": now()}}, ready):
                    told = ready
            time.sleep(0.2)
        return box.poll()

    def _probe(self, get):
        ports = {port["name"]: port["containerPort"] for port in self.spec["containers"][0]["ports"]}
        context = ssl._create_unverified_context()  # a kubelet does not check it either
        try:
            url = f"{get['scheme'].lower()}://{self.kubelets.address}:{ports[get['port']]}{get['path']}"
            return urllib.request.urlopen(url, context=context, timeout=3).status == 200
        except OSError:
            return False

    def _over(self, code, words):
        self.box = None
        phase, reason = ("Succeeded", "Completed") if code == 0 else ("Failed", "Error")
        self._tell(phase, {"terminated": {"exitCode": code, "reason": reason, "message": words[-1000:], "finishedAt": now()}}, ready=False)
        if self._ending.is_set() and self.spec["nodeName"] not in self.kubelets.dead:
            self.kubelets.gone(self._pod)

    def _tell(self, phase, state, ready):
        container = self.spec["containers"][0]
        conditions = [{"type": kind, "status": "True" if ready or kind == "Initialized" else "False"}
                      for kind in ("Initialized", "ContainersReady", "Ready")]  # fmt: skip
        status = {"phase": phase, "podIP": self.kubelets.address, "conditions": conditions, "containerStatuses": [
            {"name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "restartCount": self.restarts,
             "state": state}]}  # fmt: skip
        if self.spec["nodeName"] in self.kubelets.dead:
            return False
        for _ in range(50):  # the API server may be away
            try:
                self.kubelets.api.patch_status("pods", self.name, status, self.namespace)
                return True
            except KubernetesError:
                return False  # the pod is gone
            except OSError:
                time.sleep(0.3)
        return False

    def _start(self, container):
        mounts = []
        for mount in container.get("volumeMounts", []):
            source = self._volume(mount["name"])
            if "subPath" in mount:
                source = source / mount["subPath"]
                if not source.exists():
                    source.mkdir(parents=True)
                    os.chown(source, 0, source.parent.stat().st_gid)
                    source.chmod(0o2775)
            mounts.append((source, mount["mountPath"], mount.get("readOnly", False)))
        log = self.kubelets.directory / f"{self.name}.{container['name']}.log"
        return Box(self.directory / f"box-{container['name']}-{self.restarts}", self.kubelets.programs, container,
                   self.spec.get("securityContext", {}), mounts, self.kubelets.environment, log)  # fmt: skip

    def _volume(self, name):
        """The directory of a volume, made or brought up to date."""
        (volume,) = [volume for volume in self.spec["volumes"] if volume["name"] == name]
        group = self.spec.get("securityContext", {}).get("fsGroup", 0)
        directory = self.directory / "volumes" / name
        api = self.kubelets.api
        if "hostPath" in volume:
            return pathlib.Path(volume["hostPath"]["path"])
        if "persistentVolumeClaim" in volume:
            claim = api.get("persistentvolumeclaims", volume["persistentVolumeClaim"]["claimName"], self.namespace)
            held = api.get("persistentvolumes", claim["spec"]["volumeName"])
            directory = pathlib.Path(held["spec"]["hostPath"]["path"])
            if directory.stat().st_gid != group:
                os.chown(directory, 0, group)
                directory.chmod(0o2775)
            return directory
        if "emptyDir" in volume:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o777)
            return directory
        if "secret" in volume:
            held = api.get("secrets", volume["secret"]["secretName"], self.namespace)
            files = {key: base64.b64decode(value) for key, value in held["data"].items()}
            if held["type"] == SERVICE_ACCOUNT and self.kubelets.service_token:
                files["token"] = self.kubelets.service_token(self.spec["serviceAccountName"]).encode()
            mode = volume["secret"].get("defaultMode", 0o644)
        else:
            held = api.call("GET", path_of("configmaps", volume["configMap"]["name"], self.namespace))
            files = {key: value.encode() for key, value in held["data"].items()}
            mode = volume["configMap"].get("defaultMode", 0o644)
        if self._files.get(name) != files:
            directory.mkdir(parents=True, exist_ok=True)
            write_as_volume(directory, files, mode, group)
            self._files[name] = files
        return directory
