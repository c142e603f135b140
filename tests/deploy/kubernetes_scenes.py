"""What kubernetes_cluster.py shows, scene by scene."""

import base64
import hashlib
import socket
import ssl
import time

from bare_root import say
from kubernetes_api import NAMESPACE, KubernetesApi, KubernetesError, path_of
from kubernetes_control_plane import PORT
from waiting import wait

# What the coordinator's token must not open. `POD` and `JOB` are ones that exist.
FORBIDDEN = (
    ("GET", "/api/v1/namespaces/switchyard/secrets"),
    ("GET", "/api/v1/namespaces/switchyard/secrets/switchyard-agent-tls"),
    ("GET", "/api/v1/namespaces/switchyard/configmaps"),
    ("GET", "/api/v1/namespaces/switchyard/pods/POD/log"),
    ("POST", "/api/v1/namespaces/switchyard/pods/POD/exec?command=sh"),
    ("POST", "/api/v1/namespaces/switchyard/pods"),
    ("DELETE", "/api/v1/namespaces/switchyard/pods/POD"),
    ("DELETE", "/api/v1/namespaces/switchyard/services/switchyard-coordinator"),
    ("POST", "/api/v1/namespaces/switchyard/serviceaccounts/switchyard-coordinator/token"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/switchyard/rolebindings"),
    ("GET", "/apis/apps/v1/namespaces/switchyard/statefulsets"),
    ("GET", "/apis/batch/v1/namespaces/default/jobs"),
    ("GET", "/apis/batch/v1/jobs"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/namespaces"),
)


def install(cluster):
    """deploy/kubernetes, by the words of the handbook."""
    say("== installed as docs/operations.md says")
    cluster.kubelets.service_token = lambda account: cluster.account_token(account)
    cluster.install()
    pods = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in cluster.api.list("pods")}
    say(f"   ready: {pods}")
    assert not cluster.said("kubernetes.rights_missing"), cluster.logs()
    # As the monitors of deploy/kubernetes/monitoring do it: the operator copies what the Secret holds, to the byte.
    token = base64.b64decode(cluster.api.get("secrets", "switchyard-prometheus")["data"]["token"]).decode()
    assert token.isprintable(), f"{token!r} is no value of a header"
    prometheus = cluster.sec / "clients/prometheus"
    page = metrics(9464, "switchyard-coordinator.switchyard.svc", prometheus, f"Authorization: Bearer {token}\r\n")
    assert "switchyard_build_info{" in page, page
    wait(lambda: "switchyard_agent_connected 1" in metrics(9465, "switchyard-agent", prometheus), 30, cluster.logs)
    say("   Prometheus' token and certificate open /metrics of coordinator and keeper")
    assert (cluster.root / "volumes/files/outputs").stat().st_mode & 0o020, "made by the prepare container, for its group"


def metrics(port, name, directory, header=""):
    """The page of /metrics by TLS, from whoever has this name; with the authority and the certificate of a directory."""
    context = ssl.create_default_context(cafile=directory / "ca.crt")
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=name) as connection:
        connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: {name}\r\n{header}Connection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def play(cluster):
    """All scenes; each leaves nothing behind."""
    gang(cluster)
    lost_answer(cluster)
    crashed_api_server(cluster)
    rights(cluster)
    rotation(cluster)
    taken_away(cluster)
    lost_node(cluster)
    cancelled(cluster)
    name_that_is_taken(cluster)
    waiting(cluster)
    gpus(cluster)
    only_what_the_role_says(cluster)


def gang(cluster):
    say("== a gang of four ranks on two nodes")
    job = cluster.submit("gang")
    nodes = {}

    def ended():
        nodes.update({pod["metadata"]["name"]: pod["spec"].get("nodeName") for pod in cluster.api.list("pods")
                      if "switchyard.dev/job-uid" in pod["metadata"]["labels"]})  # fmt: skip
        return cluster.job("gang")["terminal"]

    wait(ended, 300, cluster.logs)
    done = cluster.until("gang", "JOB_STATE_SUCCEEDED")
    placed = sorted({placement["node"] for placement in done["attempts"][0]["placements"]})
    assert placed == [f"{job['uid']}-e1-0", f"{job['uid']}-e1-1"], placed
    assert len(nodes) == 2 and len(set(nodes.values())) == 2, nodes
    assert list((cluster.root / "volumes/files/outputs/gang").rglob("*.safetensors")), "weights in the shared volume"
    cluster.nothing_left()
    say(f"   pods {nodes}; {done['output_model']}; its Jobs, pods and Service are gone")


def lost_answer(cluster):
    say("== the coordinator is killed after its Job was made and before it heard so")
    cluster.proxy.hold_answers()
    try:
        cluster.submit("adopted", steps=100000, interval=50)
        wait(lambda: cluster.lent(), 30, cluster.logs)
        time.sleep(1)
        before = cluster.lent()
        assert len(before) == 1, f"it waits for the first answer: {before}"
        cluster.kill_coordinator()
    finally:
        cluster.proxy.cut()
        cluster.proxy.release()
    uid = cluster.api.get("jobs", before[0])["metadata"]["uid"]
    wait(cluster.answers, 60, cluster.logs)
    now = cluster.until("adopted", "JOB_STATE_RUNNING")
    jobs = cluster.lent()
    assert now["epoch"] == "1" and len(jobs) == 2 and cluster.api.get("jobs", before[0])["metadata"]["uid"] == uid, (now["epoch"], jobs)
    adopted = [line["name"] for line in cluster.said("kubernetes.adopted")]
    assert before[0] in adopted, adopted
    say(f"   adopted {before[0]}, made the other one, attempt 1 runs")
    say("== the coordinator is killed while it trains: the trainers go on")
    wait(lambda: int(cluster.job("adopted")["progress"]["step"]) > 50, 120, cluster.logs)
    pods, step = cluster.lent("pods"), int(cluster.job("adopted")["progress"]["step"])
    cluster.kill_coordinator()
    time.sleep(1)
    wait(cluster.answers, 60, cluster.logs)
    wait(lambda: int(cluster.job("adopted")["progress"]["step"]) > step, 60, cluster.logs)
    assert cluster.lent("pods") == pods and cluster.job("adopted")["epoch"] == "1"
    say(f"   the same pods, past step {step}")


def crashed_api_server(cluster):
    say("== the API server crashes: trainers go on, and nothing is made anew")
    pods, jobs = cluster.lent("pods"), cluster.lent()
    cluster.plane.stop_api_server()
    wait(lambda: cluster.said("kubernetes.unreachable"), 60, cluster.logs)
    step = int(cluster.job("adopted")["progress"]["step"])
    wait(lambda: int(cluster.job("adopted")["progress"]["step"]) > step, 60, cluster.logs)
    cluster.plane.start_api_server()
    wait(lambda: cluster.said("kubernetes.reachable"), 120, cluster.logs)
    say("== it crashes between a list and the watch from there: 410, and a new list")

    def lists():
        return len([entry for entry in cluster.plane.audit() if entry[:2] in (("list", "jobs"), ("list", "pods"))])

    before = lists()
    cluster.proxy.hold_answers()
    try:
        cluster.proxy.cut()
        wait(lambda: lists() >= before + 2, 60, cluster.logs)
        # What the next API server knows begins with what it finds, and that shall be newer than the lists on their way.
        cluster.api.create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "something-new"}})
        cluster.plane.stop_api_server()
        cluster.plane.start_api_server()
        # One that has not read its roles yet would answer 403, and there would be no watch.
        wait(lambda: not cluster.as_coordinator().forbidden("GET", path_of("jobs")), 60, cluster.logs)
    finally:
        cluster.proxy.release()
    wait(lambda: len(cluster.said("kubernetes.listed_again")) >= 2, 60, cluster.logs)
    for line in cluster.said("kubernetes.listed_again"):
        say(f"   {line['resource']}: {line['why']}")
    now = cluster.job("adopted")
    assert (cluster.lent("pods"), cluster.lent(), now["epoch"]) == (pods, jobs, "1")


def rights(cluster):
    say("== the coordinator's token opens its own Jobs, and nothing else")
    account = cluster.as_coordinator()
    assert account.list("jobs") and account.list("pods")
    pod = cluster.lent("pods")[0]
    for method, path in FORBIDDEN:
        path = path.replace("POD", pod)
        assert account.forbidden(method, path, {} if method == "POST" else None), f"{method} {path} is allowed"
    say(f"   forbidden: {len(FORBIDDEN)} requests, among them secrets, pods/log, pods/exec, Jobs of other namespaces")


def rotation(cluster):
    say("== its token is replaced, the old one dies; the server's certificate is replaced")
    old = cluster.account_token()
    cluster.token_number += 1
    new = cluster.account_token()
    pod = cluster.kubelets.pod("switchyard-coordinator")
    files = list((pod.directory / "volumes").glob("*/token"))
    assert len(files) == 1, files
    wait(lambda: files[0].read_text() == new, 20, "the kubelet to write the new token")
    cluster.api.delete("secrets", "bound-0")

    def refused():
        try:
            KubernetesApi(f"https://127.0.0.1:{PORT}", cluster.plane.authority, old).list("jobs")
        except KubernetesError as error:
            return error.code == 401
        return False

    wait(refused, 30, "the old token to be refused")
    restarts = pod.restarts
    before = server_certificate()
    cluster.run("switchyard-coordinator issue-server --security-dir SEC")
    cluster.run("kubectl -n switchyard create secret generic switchyard-coordinator-tls --from-file=SEC/ca.crt --from-file=SEC/tls.crt"
                " --from-file=SEC/tls.key --dry-run=client -o json | kubectl apply -f -")  # fmt: skip
    wait(lambda: server_certificate() != before, 30, "the new certificate to be served")
    # The new token: a Job is made with it. It is a minute before the coordinator would look by itself.
    job = cluster.submit("rotated", ranks=2)
    wait(lambda: any(job["uid"] in name for name in cluster.lent()), 30, cluster.logs)
    cluster.switchyard("cancel", "rotated")
    cluster.until("rotated", "JOB_STATE_CANCELLED")
    assert pod.restarts == restarts, "nothing was restarted"
    say(f"   {job['name']} was made and cancelled; no restart")


def server_certificate():
    """A hash of what the coordinator's port shows."""
    return hashlib.sha256(ssl.get_server_certificate(("127.0.0.1", 9464)).encode()).hexdigest()


def taken_away(cluster):
    say("== a pod is deleted, as a drain does: the next attempt goes on from the checkpoint")
    wait(lambda: int(cluster.job("adopted")["progress"]["checkpoint_step"]) >= 50, 120, cluster.logs)
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", cluster.lent("pods")[0], "--wait=false")
    wait(lambda: cluster.job("adopted")["epoch"] == "2", 90, cluster.logs)
    now = cluster.until("adopted", "JOB_STATE_RUNNING")
    assert int(now["attempts"][1]["resumed_from_step"]) >= 50, now
    assert now["attempts"][0]["outcome"]["code"] == "PREEMPTED", now["attempts"][0]["outcome"]
    say(f"   attempt 1: PREEMPTED; attempt 2 runs from step {now['attempts'][1]['resumed_from_step']}")


def lost_node(cluster):
    say("== a machine loses its power: Kubernetes waits for it, the job does not")
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in cluster.api.list("pods")}
    node = next(nodes[name] for name in cluster.lent("pods") if nodes[name] != nodes["switchyard-coordinator-0"])
    saved, begun = int(cluster.job("adopted")["progress"]["checkpoint_step"]), time.monotonic()
    cluster.kubelets.kill_node(node)
    wait(lambda: cluster.job("adopted")["epoch"] == "3", 240, cluster.logs)
    now = cluster.until("adopted", "JOB_STATE_RUNNING")
    ended, resumed = now["attempts"][1]["outcome"]["code"], int(now["attempts"][2]["resumed_from_step"])
    assert ended == "NODE_LOST" and resumed >= saved, now
    lent = [pod for pod in cluster.api.list("pods") if "switchyard.dev/store" in pod["metadata"]["labels"]]
    stays = [pod for pod in lent if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]
    running = {pod["spec"]["nodeName"] for pod in stays}
    assert len(running) == 2 and node not in running, running
    say(f"   {node}: {ended}; attempt 3 runs on {', '.join(sorted(running))} from step {resumed}, {time.monotonic() - begun:.0f} s later")
    cluster.kubelets.revive_node(node)


def cancelled(cluster):
    say("== a job that runs is cancelled")
    cluster.switchyard("cancel", "adopted")
    cluster.until("adopted", "JOB_STATE_CANCELLED")
    cluster.nothing_left()
    say("   no Job, pod or Service is left")


def name_that_is_taken(cluster):
    say("== the name of an attempt's Job is taken by somebody else")
    store = cluster.said("kubernetes.created")[0]["name"].split("-")[1]
    cluster.proxy.hold_requests()
    try:
        job = cluster.submit("taken")
        name = f"switchyard-{store}-{job['uid']}-e1-0"
        cluster.api.create("jobs", {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": {"owner": "somebody"}},
                                    "spec": {"parallelism": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [
                                        {"name": "theirs", "image": "theirs"}]}}}})  # fmt: skip
    finally:
        cluster.proxy.release()
    done = cluster.until("taken", "JOB_STATE_SUCCEEDED")
    first = done["attempts"][0]["outcome"]
    assert first["code"] == "ALLOCATION_REFUSED" and name in first["message"], first
    theirs = cluster.api.get("jobs", name)
    assert theirs["metadata"]["labels"]["owner"] == "somebody" and "deletionTimestamp" not in theirs["metadata"]
    cluster.api.delete("jobs", name)
    cluster.nothing_left()
    say(f"   attempt 1: {first['message'][:120]}...; attempt 2 succeeded, theirs was left alone")


def waiting(cluster):
    say("== a job that waits for nodes says so, and is cancelled")
    nodes = [node["metadata"]["name"] for node in cluster.api.list("nodes") if not node["spec"].get("unschedulable")]
    for node in nodes:
        cluster.kubectl("cordon", node)
    cluster.submit("waiting")
    told = wait(lambda: "nodes are available" in cluster.job("waiting")["reason"]["message"] and cluster.job("waiting"), 60, cluster.logs)
    say(f"   {told['state']}: {told['reason']['message']}")
    cluster.switchyard("cancel", "waiting")
    cluster.until("waiting", "JOB_STATE_CANCELLED")
    cluster.nothing_left()
    for node in nodes:
        cluster.kubectl("uncordon", node)


def gpus(cluster):
    say("== single-node as it is shipped: a job of eight GPUs is bound where there are GPUs")
    cluster.run("kubectl apply -k deploy/kubernetes/single-node")
    cluster.run("kubectl -n switchyard rollout status statefulset/switchyard-coordinator --timeout=120s")
    wait(cluster.answers, 60, cluster.logs)
    cluster.kubectl("uncordon", "gpu-1")
    cluster.submit("gpus", device="cuda", ranks=8, model="for-gpus")

    def bound():
        pods = [pod for pod in cluster.api.list("pods") if "switchyard.dev/job-uid" in pod["metadata"]["labels"]]
        return pods and pods[0]["spec"].get("nodeName") and pods[0]

    pod = wait(bound, 60, cluster.logs)
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert pod["spec"]["nodeName"] == "gpu-1" and limits["nvidia.com/gpu"] == "8", pod
    say(f"   {pod['metadata']['name']} asks for {limits} and is bound to gpu-1 (not started: there is no GPU here)")
    cluster.switchyard("cancel", "gpus")
    cluster.until("gpus", "JOB_STATE_CANCELLED")
    cluster.nothing_left()


def only_what_the_role_says(cluster):
    say("== what the coordinator asked for, by the API server's audit log")
    role = cluster.api.call("GET", path_of("roles", "switchyard-coordinator"))
    granted = {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    by_itself = cluster.plane.audit()
    asked = {(verb, resource) for verb, resource, namespace, _ in by_itself if namespace == NAMESPACE}
    elsewhere = {(verb, resource) for verb, resource, namespace, _ in by_itself if namespace != NAMESPACE}
    # An API server that comes back may refuse what is granted until it has read its roles.
    refused = {(verb, resource) for verb, resource, _, code in by_itself if code == 403}
    assert refused <= granted, f"asked for and not granted: {refused - granted}"
    assert asked == granted, f"granted and never used: {granted - asked}; used and not granted: {asked - granted}"
    assert elsewhere <= {("create", "selfsubjectaccessreviews"), ("get", "/version")}, elsewhere
    say(f"   {len(by_itself)} requests: {', '.join(f'{verb} {resource}' for verb, resource in sorted(asked))}")
    say(f"   exactly its Role, and {', '.join(f'{verb} {resource}' for verb, resource in sorted(elsewhere))}")
