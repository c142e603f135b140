"""Manifests for Kubernetes: valid for its oldest and newest version that we name, hardened, and in step with the tree."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from kubernetes_programs import find_kubectl  # noqa: E402

ROOT = pathlib.Path(os.environ.get("SWITCHYARD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
MANIFESTS = ROOT / "deploy/kubernetes"
CLUSTERS = ("single-node", "gpu-nodes")
VERSIONS = ("1.29", "1.37")
# Of the Prometheus operator: Kubernetes' schemas do not have them.
OPERATOR_KINDS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
# Where the flags of an image's program are declared.
FLAGS = {"switchyard/coordinator": "coordinator/main.cc", "switchyard/node": "worker/agent/host/options.cc"}


def kubectl():
    return find_kubectl() or pytest.fail("kubectl with kustomize 5 is not here: tools/setup.sh --tests gets it")


def rendered(name, cache={}):  # noqa: B006  (one rendering a run)
    """The objects of a kustomization; whatever kubectl warns of is an error."""
    if name not in cache:
        done = subprocess.run([kubectl(), "kustomize", MANIFESTS / name], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr
        cache[name] = list(yaml.safe_load_all(done.stdout))
    return cache[name]


def one(objects, kind, name):
    """The object of a kind and name."""
    (found,) = [o for o in objects if o["kind"] == kind and re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", o["metadata"]["name"])]
    return found


def launcher(cluster):
    """The launcher's file of a cluster, as the coordinator's pod gets it."""
    return json.loads(one(rendered(cluster), "ConfigMap", "switchyard-launcher")["data"]["kubernetes.json"])


def pods(cluster):
    """The pod templates of the manifests."""
    return [o["spec"]["template"] for o in rendered(cluster) if "template" in o.get("spec", {})]


def containers(pod):
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def flags(arguments):
    """{"--flag": [values]} of arguments of the form --flag=value."""
    found = {}
    for argument in arguments:
        flag, _, value = argument.partition("=")
        found.setdefault(flag, []).append(value)
    return found


def matches(selector, labels):
    """Whether a label selector takes these labels."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        e["operator"] == "In" and labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", [])
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*CLUSTERS, "monitoring"])
def test_every_object_is_valid_in_strict_mode(name, version):
    for item in rendered(name):
        if item["kind"] not in OPERATOR_KINDS:
            assert kubernetes_validate.validate(item, version, strict=True) == version
    assert {o["kind"] for o in rendered("monitoring")} == OPERATOR_KINDS


def test_a_field_that_does_not_exist_would_be_found():
    item = json.loads(json.dumps(one(rendered("single-node"), "StatefulSet", "switchyard-coordinator")))
    item["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(item, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_pods_are_hardened_and_only_the_coordinator_has_a_token(cluster):
    for pod in pods(cluster):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert spec["automountServiceAccountToken"] == (pod["metadata"]["labels"]["app.kubernetes.io/name"] == "switchyard-coordinator")
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            assert re.fullmatch(r"switchyard/(coordinator|node):[\w.-]+", container["image"]), "a registry is set by kustomize"


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_arguments_are_flags_that_exist_and_directories_agree(cluster):
    agents = {"switchyard/node": launcher(cluster)["agent_arguments"]}
    roots = []
    for image, arguments in [
        *((c["image"].partition(":")[0], c["args"]) for pod in pods(cluster) for c in pod["spec"]["containers"]),
        *agents.items(),
    ]:
        given = flags(arguments)
        declared = set(re.findall(r'"(--[a-z-]+)"', (ROOT / FLAGS[image]).read_text()))
        assert given.keys() <= declared, given.keys() - declared
        roots.append({flag: values for flag, values in given.items() if flag.endswith("-root")})
    assert len(roots) == 3 and roots[0] == roots[1] == roots[2] and len(roots[0]) == 3, roots


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_pods_refer_to_is_there_or_documented(cluster):
    objects = rendered(cluster)
    documented = set(re.findall(r"create secret generic ([a-z-]+)", (ROOT / "docs/operations.md").read_text()))
    lent = {"spec": {**launcher(cluster)["pod"], "containers": [launcher(cluster)["container"]]}}
    secrets = set()
    for pod in [*pods(cluster), lent]:
        mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        claimed = {t["metadata"]["name"] for o in objects for t in o.get("spec", {}).get("volumeClaimTemplates", [])}
        assert {volume["name"] for volume in pod["spec"]["volumes"]} <= mounted
        assert mounted <= {volume["name"] for volume in pod["spec"]["volumes"]} | claimed
        one(objects, "ServiceAccount", pod["spec"]["serviceAccountName"])
        for volume in pod["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                one(objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            if "configMap" in volume:
                one(objects, "ConfigMap", volume["configMap"]["name"])
            if "secret" in volume:
                secrets.add(volume["secret"]["secretName"])
                # Keys are refused when anybody but their owner and root's group may read them.
                assert volume["secret"]["defaultMode"] == 0o440
    references = find(rendered("monitoring"), lambda value: isinstance(value, dict) and set(value) == {"name", "key"})
    assert secrets | {reference["name"] for reference in references} == documented


def find(tree, wanted):
    """Values in a tree of dicts and lists that `wanted` takes."""
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if wanted(value):
            yield value
        yield from find(value, wanted)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_services_probes_and_policies_meet_the_pods(cluster):
    objects = rendered(cluster)
    by_name = {pod["metadata"]["labels"]["app.kubernetes.io/name"]: pod for pod in pods(cluster)}
    coordinator = by_name["switchyard-coordinator"]
    (container,) = coordinator["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    given = flags(container["args"])
    assert given["--listen"] == [f"0.0.0.0:{ports['grpc']}"] and given["--metrics"] == [f"0.0.0.0:{ports['metrics']}"]
    service = one(objects, "Service", "switchyard-coordinator")
    assert matches({"matchLabels": service["spec"]["selector"]}, coordinator["metadata"]["labels"])
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    address = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{ports['grpc']}"
    assert launcher(cluster)["coordinator"] == address
    assert flags(by_name["switchyard-keeper"]["spec"]["containers"][0]["args"])["--coordinator"] == [address]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics", "scheme": "HTTPS"}
    policies = [o["spec"] for o in objects if o["kind"] == "NetworkPolicy"]
    for pod in by_name.values():
        labels = pod["metadata"]["labels"]
        directions = {d for policy in policies if matches(policy["podSelector"], labels) for d in policy["policyTypes"]}
        assert directions == {"Ingress", "Egress"}
    monitor = one(rendered("monitoring"), "ServiceMonitor", "switchyard-coordinator")["spec"]
    assert matches(monitor["selector"], service["metadata"]["labels"])
    assert monitor["endpoints"][0]["tlsConfig"]["serverName"] == address.partition(":")[0]


def test_the_prometheus_rule_holds_the_rules_of_deploy_monitoring():
    path = MANIFESTS / "monitoring/make_prometheus_rule.py"
    spec = importlib.util.spec_from_file_location("make_prometheus_rule", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (path.parent / "prometheus_rule.yaml").read_text() == made.prometheus_rule(), f"run {path.relative_to(ROOT)}"
    rules = yaml.safe_load((ROOT / "deploy/monitoring/switchyard.rules.yml").read_text())
    assert one(rendered("monitoring"), "PrometheusRule", "switchyard")["spec"] == rules
