#!/usr/bin/env python3
"""Builds a Kubernetes control plane from Debian's sources and keeps it: kube-apiserver, its controllers, its scheduler.

Debian packages no such server, but its source package of 1.20 has everything in it; Debian's Go builds it, and etcd is
a package. All of it is unpacked below the cache directory: nothing is installed, and neither root nor a change of apt's
lists is needed. The first call takes 5 to 15 minutes on two cores, and 3 GB for the time being; 270 MB stay.

    tests/deploy/kubernetes_programs.py      prints the directory of the programs
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from bare_root import CACHE, MIRROR, SUITE, say  # noqa: E402

VERSION = "1.20.2"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
SOURCE = "gopath/src/k8s.io/kubernetes"  # where Go looks for it
PACKAGES = ("golang-1.19-go", "golang-1.19-src", "golang-github-modern-go-reflect2-dev", "etcd-server")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Part of the directory's name: a change of the recipe builds anew.
RECIPE = 1
DIRECTORY = CACHE / f"kubernetes-{VERSION}-{RECIPE}"


def run(*command, cwd, env=None):
    """Runs a command; its output is shown only when it fails."""
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def download(work):
    """Fetches and unpacks Debian's packages and the source, by an apt whose lists and caches lie in `work`."""
    for directory in ("lists/partial", "cache/archives/partial"):
        (work / directory).mkdir(parents=True, exist_ok=True)
    (work / "sources.list").write_text(
        "".join(f"{kind} [signed-by={KEYRING}] {MIRROR} {SUITE} main\n" for kind in ("deb", "deb-src")))  # fmt: skip
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={work}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
           "-o", f"Dir::State::lists={work}/lists", "-o", f"Dir::Cache={work}/cache", "-o", "APT::Sandbox::User="]  # fmt: skip
    run(*apt, "update", cwd=work)
    run(*apt, "download", *PACKAGES, cwd=work)
    for package in work.glob("*.deb"):
        run("dpkg", "-x", package, work / "root", cwd=work)
    run(*apt, "source", "kubernetes", cwd=work)
    (source,) = work.glob("kubernetes-1.20*/")
    (work / SOURCE).parent.mkdir(parents=True)
    source.rename(work / SOURCE)


def generate(source, env):
    """The API's description, the one generated file that the sources lack: from the packages that ask to be in it."""
    own = [*source.glob("pkg/**/*.go"), *(source / "staging/src/k8s.io").glob("**/*.go")]
    asking = {file.parent.relative_to(source) for file in own if "+k8s:openapi-gen=true" in file.read_text()}
    skipped = ("code-generator", "sample-apiserver")
    packages = sorted(str(path).replace("staging/src/", "vendor/") for path in asking if not any(part in skipped for part in path.parts))
    run("nice", "-n", "5", "go", "build", "-o", "openapi-gen", "./vendor/k8s.io/kube-openapi/cmd/openapi-gen", cwd=source, env=env)
    run("./openapi-gen", "--logtostderr", "-i", ",".join(f"k8s.io/kubernetes/{package}" for package in packages),
        "-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi", "-o", source.parents[1],
        "-h", "hack/boilerplate/boilerplate.generatego.txt", "-r", source / "openapi-violations", cwd=source, env=env)  # fmt: skip


def build(work):
    """Builds the programs into `work`/bin."""
    source, root = work / SOURCE, work / "root"
    # The reflect2 of these sources reads the runtime's type tables in a way that newer versions of Go forbid: the
    # server would crash within a minute ("unexpected fault address"). Debian has the version that does not.
    reflect2 = "github.com/modern-go/reflect2"
    shutil.rmtree(source / "vendor" / reflect2)
    shutil.copytree(root / "usr/share/gocode/src" / reflect2, source / "vendor" / reflect2)
    known = {"gitVersion": f"v{VERSION}", "gitMajor": "1", "gitMinor": "20", "gitTreeState": "archive"}
    vendored = "k8s.io/kubernetes/vendor/k8s.io"
    stamp = " ".join(f"-X {vendored}/{package}.{name}={value}" for package in ("component-base/version", "client-go/pkg/version")
                     for name, value in known.items())  # fmt: skip
    go = root / "usr/lib/go-1.19"
    env = {
        "PATH": f"{go}/bin:{os.environ['PATH']}", "GOROOT": str(go), "HOME": str(work), "GOCACHE": str(work / "gocache"),
        "GOPATH": str(work / "gopath"), "GO111MODULE": "off", "GOPROXY": "off", "CGO_ENABLED": "0",
        # Two packages at a time: the compiler needs much memory, and others use this machine too.
        "GOFLAGS": "-p=2", "GOMAXPROCS": "2",
    }  # fmt: skip
    generate(source, env)
    (work / "bin").mkdir(exist_ok=True)
    run("nice", "-n", "5", "go", "build", "-trimpath", "-ldflags", f"-s -w {stamp}", "-o", f"{work}/bin/",
        *(f"./cmd/{program}" for program in PROGRAMS), cwd=source, env=env)  # fmt: skip
    shutil.copy2(root / "usr/bin/etcd", work / "bin/etcd")


def find_kubectl():
    """The path of a kubectl whose kustomize is of today, or None."""
    for program in (shutil.which("kubectl"), HERE.parents[1] / ".venv/kubernetes/kubectl"):
        if program and pathlib.Path(program).exists():
            said = subprocess.run([program, "version", "--client"], capture_output=True, text=True, check=False).stdout
            if "Kustomize Version: v5" in said:
                return str(program)
    return None


def programs():
    """The directory with etcd and Kubernetes' programs; they are built when they are not there."""
    if DIRECTORY.exists():
        return DIRECTORY
    if shutil.which("dpkg-source") is None:
        sys.exit("error: dpkg-source is missing; install it: apt-get install dpkg-dev")
    if not pathlib.Path(KEYRING).exists():
        sys.exit(f"error: {KEYRING} is missing; install it: apt-get install debian-archive-keyring")
    say(f"== building Kubernetes {VERSION} from Debian's sources, kept as {DIRECTORY}")
    work = CACHE / f"{DIRECTORY.name}.work"
    if not (work / "unpacked").exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        download(work)
        (work / "unpacked").touch()
    build(work)
    (work / "bin").rename(DIRECTORY)
    shutil.rmtree(work)
    return DIRECTORY


if __name__ == "__main__":
    print(programs())
