"""Kubernetes' real control plane on this machine: etcd, API server, controllers and scheduler, on loopback, in one directory.

Needs a network namespace of its own (fixed ports) in which ADDRESS exists.
"""

import json
import os
import pathlib
import shutil
import subprocess

from kubernetes_api import KubernetesApi, KubernetesError
from waiting import wait

ADDRESS = "10.99.0.1"  # the API server wants one that is not loopback
PORT = 6443
ADMIN_TOKEN = "admin-of-this-trial"


class ControlPlane:
    """Its processes, and `api`, an administrator's."""

    def __init__(self, root, binaries, programs, audited):
        """`audited`: the user whose requests are written to audit.log."""
        self.root, self.binaries, self.daemons = root, binaries, {}
        pki = root / "pki"
        subprocess.run([programs / "switchyard-coordinator", "init", "--security-dir", pki, "--host", ADDRESS, "--host", "127.0.0.1"],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        for command in (["genrsa", "-out", "accounts.key", "2048"], ["rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"]):
            subprocess.run(["openssl", *command], cwd=pki, check=True, capture_output=True)
        self.authority = pki / "ca.crt"
        (root / "tokens.csv").write_text(f"{ADMIN_TOKEN},admin,admin,system:masters\n")
        (root / "audit.json").write_text(json.dumps({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "users": [audited]}, {"level": "None"}]}))  # fmt: skip
        self.kubeconfig = root / "kubeconfig"
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "trial",
            "clusters": [{"name": "trial", "cluster": {"server": f"https://127.0.0.1:{PORT}", "certificate-authority": str(self.authority)}}],
            "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
            "contexts": [{"name": "trial", "context": {"cluster": "trial", "user": "admin"}}]}))  # fmt: skip
        # Its many small writes must not wait for the disk of a machine that is busy with other things.
        self.memory = pathlib.Path("/dev/shm") / root.name
        self.api = KubernetesApi(f"https://127.0.0.1:{PORT}", self.authority, ADMIN_TOKEN)

    def spawn(self, name, *command):
        """Starts a daemon with its output in a log."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        with (self.root / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def start(self):
        """All of it, until the API server answers and the namespace's controllers run."""
        self.spawn("etcd", self.binaries / "etcd", "--data-dir", self.memory / "etcd", "--listen-client-urls", "http://127.0.0.1:2379",
                   "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380")  # fmt: skip
        self.start_api_server()
        self.spawn("controllers", self.binaries / "kube-controller-manager", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
                   "--port=0", "--secure-port=0", f"--root-ca-file={self.authority}", "--node-monitor-grace-period=20s",
                   f"--service-account-private-key-file={self.root}/pki/accounts.key")  # fmt: skip
        self.spawn("scheduler", self.binaries / "kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--port=0",
                   "--secure-port=0")  # fmt: skip
        wait(lambda: self.api.get("serviceaccounts", "default", "default"), 60, self.logs)

    def start_api_server(self):
        """The API server, until it is ready."""
        pki = self.root / "pki"
        self.spawn("apiserver", self.binaries / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--secure-port={PORT}",
                   f"--advertise-address={ADDRESS}", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
                   f"--tls-cert-file={pki}/tls.crt", f"--tls-private-key-file={pki}/tls.key", f"--token-auth-file={self.root}/tokens.csv",
                   "--authorization-mode=RBAC", "--anonymous-auth=false", "--service-account-issuer=https://kubernetes.default.svc",
                   f"--service-account-signing-key-file={pki}/accounts.key", f"--service-account-key-file={pki}/accounts.pub",
                   f"--audit-policy-file={self.root}/audit.json", f"--audit-log-path={self.root}/audit.log")  # fmt: skip

        def ready():
            assert self.daemons["apiserver"].poll() is None, self.logs()
            try:
                return self.api.call("GET", "/api/v1/namespaces/kube-system")
            except (OSError, KubernetesError):
                return None

        wait(ready, 120, self.logs)

    def stop_api_server(self):
        """Kills it, as a crash would."""
        self.daemons["apiserver"].kill()
        self.daemons["apiserver"].wait()

    def stop(self):
        """Kills everything."""
        for process in self.daemons.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.memory, ignore_errors=True)

    def audit(self):
        """The audited user's requests, but for those of this program: (verb, resource with its subresource, namespace, code)."""
        found = []
        for line in (self.root / "audit.log").read_text().splitlines():
            entry = json.loads(line)
            if entry.get("userAgent", "").startswith("Python"):
                continue
            thing = entry.get("objectRef", {})
            resource = thing.get("resource", entry["requestURI"].partition("?")[0])
            resource += f"/{thing['subresource']}" if "subresource" in thing else ""
            found.append((entry["verb"], resource, thing.get("namespace", ""), entry.get("responseStatus", {}).get("code", 0)))
        return found

    def logs(self):
        """The ends of all logs."""
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in self.root.glob("*.out"))
