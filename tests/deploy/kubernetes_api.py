"""The Kubernetes API as the tests of deploy/ need it: objects by their paths, by a token of one's own."""

import json
import ssl
import urllib.error
import urllib.request

NAMESPACE = "switchyard"


class KubernetesError(Exception):
    """A request that was answered with an error: `code` is HTTP's."""

    def __init__(self, code, text):
        self.code = code
        super().__init__(f"{code}: {text}")


def path_of(kind, name="", namespace=NAMESPACE):
    """Where objects of a kind are: pods, jobs, nodes..."""
    groups = {"jobs": "apis/batch/v1", "statefulsets": "apis/apps/v1", "deployments": "apis/apps/v1",
              "leases": "apis/coordination.k8s.io/v1", "roles": "apis/rbac.authorization.k8s.io/v1"}  # fmt: skip
    everywhere = kind in ("nodes", "persistentvolumes", "namespaces")
    within = "" if everywhere or not namespace else f"/namespaces/{namespace}"
    return f"/{groups.get(kind, 'api/v1')}{within}/{kind}" + (f"/{name}" if name else "")


class KubernetesApi:
    """Calls an API server. Safe to use from several threads."""

    def __init__(self, url, authority, token):
        self.url, self.token = url, token
        self._context = ssl.create_default_context(cafile=str(authority))

    def call(self, method, path, body=None, kind="application/json"):
        """Returns the answer; errors are KubernetesError, and OSError when there is no answer."""
        request = urllib.request.Request(self.url + path, method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise KubernetesError(error.code, error.read().decode(errors="replace")[:500]) from None

    def list(self, kind, namespace=NAMESPACE):
        """All objects of a kind."""
        return self.call("GET", path_of(kind, namespace=namespace))["items"]

    def get(self, kind, name, namespace=NAMESPACE):
        """One object, or None."""
        try:
            return self.call("GET", path_of(kind, name, namespace))
        except KubernetesError as error:
            if error.code == 404:
                return None
            raise

    def create(self, kind, item, namespace=NAMESPACE):
        """Creates an object and returns it as it is stored."""
        return self.call("POST", path_of(kind, namespace=namespace), item)

    def delete(self, kind, name, namespace=NAMESPACE, **options):
        """Asks for an object's end."""
        return self.call("DELETE", path_of(kind, name, namespace), {"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def patch_status(self, kind, name, status, namespace=NAMESPACE):
        """Changes fields of an object's status; lists with keys are merged."""
        return self.call("PATCH", path_of(kind, name, namespace) + "/status", {"status": status},
                         "application/strategic-merge-patch+json")  # fmt: skip

    def forbidden(self, method, path, body=None):
        """Whether a request is refused for want of a right."""
        try:
            self.call(method, path, body)
        except KubernetesError as error:
            return error.code == 403
        return False
