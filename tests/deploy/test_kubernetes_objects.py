"""What the launcher makes of the shipped files: valid for old and new Kubernetes, hardened, and known to policies."""

import json
import os
import pathlib
import subprocess

import kubernetes_validate
import pytest
from test_kubernetes import CLUSTERS, MANIFESTS, ROOT, VERSIONS, matches, one, rendered

BINARIES = pathlib.Path(os.environ.get("SWITCHYARD_BINARY_DIR", ROOT / "build")) / "bin"


def objects(cluster, version, nodes=2, slots=8):
    """The Jobs and the Service of an attempt."""
    done = subprocess.run(
        [BINARIES / "kubernetes_objects", MANIFESTS / cluster / "kubernetes.json", version.partition(".")[2], str(nodes), str(slots)],
        capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_object_is_valid_in_strict_mode(cluster, version):
    made = objects(cluster, version)
    assert [item["kind"] for item in made] == ["Job", "Job", "Service"]
    for item in made:
        assert kubernetes_validate.validate(item, version, strict=True) == version
    assert {"podFailurePolicy", "podReplacementPolicy"} <= made[0]["spec"].keys()


def test_servers_that_do_not_know_newer_fields_are_not_given_them():
    assert not {"podFailurePolicy", "podReplacementPolicy"} & objects("gpu-nodes", "1.20")[0]["spec"].keys()


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_pods_meet_the_restricted_standard_of_their_namespace(cluster):
    spec = objects(cluster, VERSIONS[-1])[0]["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # The agent's key, root's and readable by this group.
    assert spec["securityContext"]["fsGroup"] == 10001
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= allowed
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert len(set(mounts)) == len(mounts) and {"/models", "/data", "/outputs", "/etc/switchyard/tls", "/dev/shm", "/tmp"} <= set(mounts)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_network_policies_and_the_monitor_find_the_pods(cluster):
    template = objects(cluster, VERSIONS[-1])[0]["spec"]["template"]
    labels = template["metadata"]["labels"]
    manifests = rendered(cluster)
    agents = one(manifests, "NetworkPolicy", "switchyard-agents")["spec"]
    assert matches(agents["podSelector"], labels)
    assert any(matches(peer["podSelector"], labels) for rule in agents["ingress"] for peer in rule["from"] if "podSelector" in peer)
    coordinator = one(manifests, "NetworkPolicy", "switchyard-coordinator")["spec"]
    assert not matches(coordinator["podSelector"], labels)
    assert any(matches(peer["podSelector"], labels) for rule in coordinator["ingress"] for peer in rule["from"] if "podSelector" in peer)
    monitor = one(rendered("monitoring"), "PodMonitor", "switchyard-agent")["spec"]
    assert matches(monitor["selector"], labels)
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert monitor["podMetricsEndpoints"][0]["port"] in ports
    # Prometheus is let in to that port.
    assert any(port["port"] == ports["metrics"] for rule in agents["ingress"] for port in rule.get("ports", []))
