#!/usr/bin/env python3
"""Builds the images of deploy/containers with buildah and runs a job in them, as the users that they name.

Stands in for a registry: the base image debian:12-slim is a debootstrap of Debian 12. Containers are buildah's chroot
isolation, which needs no container runtime. Needs root, a network, buildah and debootstrap, 40 GB of disk.

    tests/deploy/container_images.py [--packages DIR] [--store DIR]

--packages takes packages that were built before instead of the build stage, which compiles everything anew; --store keeps images
and layers for the next run.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
sys.path.insert(0, str(HERE))
from bare_root import BareRoot, need, say  # noqa: E402
from tiny_job import write_job  # noqa: E402

INSIDE = "SWITCHYARD_INSIDE_NAMESPACES"
TARGETS = ("coordinator", "node")
USER = "10001:10001"


class Buildah:
    """The builder, with storage of its own."""

    def __init__(self, store):
        self._base = ["buildah", "--root", store / "root", "--runroot", store / "run"]

    def __call__(self, *arguments, **options):
        """Runs a command and returns what it printed."""
        command = [*map(str, self._base), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        if done.returncode != 0:
            sys.exit(f"error: {' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout.strip()

    def start(self, container, *command, volumes=()):
        """Starts a program in a container, as the image's user."""
        arguments = [*self._base, "run", "--isolation", "chroot", "--user", USER]
        for volume in volumes:
            arguments += ["--volume", volume]
        return subprocess.Popen([*map(str, arguments), container, "--", *map(str, command)])


def make_base(buildah, directory):
    """The base image, with this machine's network settings in it."""
    if "debian" in buildah("images"):
        return
    with BareRoot(directory / "base") as root:
        if pathlib.Path("/etc/pip.conf").exists():
            shutil.copy("/etc/pip.conf", root / "/etc/pip.conf")
        (root / "/usr/sbin/policy-rc.d").unlink()
    archive = directory / "base.tar"
    subprocess.run(["tar", "-C", directory / "base", "-cf", archive, "."], check=True)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, archive, "/")
    buildah("commit", "--quiet", "--rm", container, "docker.io/library/debian:12-slim")
    shutil.rmtree(directory / "base")
    archive.unlink()


def build_images(buildah, packages):
    """Both targets; with `packages` a directory of them stands in for the build stage."""
    dockerfile = ("--isolation", "chroot", "--pull=never", "--layers", "--build-arg", "SWITCHYARD_CUDA=OFF", "-f",
                  SOURCE / "deploy/containers/Dockerfile")  # fmt: skip
    began = time.monotonic()
    if packages:
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, packages, "/src/build/packages")
        buildah("commit", "--quiet", "--rm", container, "localhost/build")
    else:
        buildah("build", *dockerfile, "--target", "build", "-t", "localhost/build", SOURCE)
    say(f"   build stage: {time.monotonic() - began:.0f} s")
    # As an image: buildah 1.28 mounts nothing from a stage that it finds in its cache.
    stage = ("--build-context", "build=container-image://localhost/build")
    for target in TARGETS:
        began = time.monotonic()
        buildah("build", *dockerfile, *stage, "--target", target, "-t", f"switchyard-{target}", SOURCE)
        config = json.loads(buildah("inspect", "--type", "image", f"switchyard-{target}"))["OCIv1"]["config"]
        assert config["User"] == USER, config
        say(f"   switchyard-{target}: {config['Entrypoint']} as {config['User']}, {time.monotonic() - began:.0f} s")


def run_job(buildah, directory):
    """A coordinator and a node from the images; the command line is in the coordinator's."""
    data = directory / "data"
    data.mkdir()
    write_job(data, inside="/data")
    subprocess.run(["chown", "-R", USER, data], check=True)
    containers = {target: buildah("from", "--pull=never", f"switchyard-{target}") for target in TARGETS}
    started = []
    try:
        volumes = (f"{data}:/data",)
        started.append(buildah.start(
            containers["coordinator"], "/usr/bin/switchyard-coordinator", "--state-dir", "/data/state", "--listen",
            "127.0.0.1:0", "--metrics", "off", volumes=volumes))  # fmt: skip
        address = data / "state" / "listen-address"
        for _ in range(200):
            if address.exists():
                break
            time.sleep(0.1)
        started.append(buildah.start(
            containers["node"], "/usr/bin/switchyard-agent", "--work-dir", "/data/agent", "--coordinator",
            address.read_text(), "--node", "contained", "--cpu-slots", "2", "--metrics", "off", volumes=volumes))  # fmt: skip
        time.sleep(3)
        watched = buildah.start(containers["coordinator"], "/usr/bin/switchyard", "--coordinator", address.read_text(),
                                "submit", "--watch", "/data/job.json", volumes=volumes)  # fmt: skip
        assert watched.wait(300) == 0, "the job failed"
        owner = (data / "out" / "tiny" / "final" / "config.json").stat()
        assert f"{owner.st_uid}:{owner.st_gid}" == USER, owner
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(60)
        for container in containers.values():
            buildah("rm", container)


def main():
    """All of it, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=pathlib.Path, help="directory of Debian packages to use")
    parser.add_argument("--store", type=pathlib.Path, help="directory for images and layers")
    arguments = parser.parse_args()
    need(("buildah", "buildah"), ("debootstrap", "debootstrap"))
    if INSIDE not in os.environ:
        # Whatever a container leaves running ends with this process.
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv])
    directory = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-images."))
    store = arguments.store or directory / "store"
    store.mkdir(parents=True, exist_ok=True)
    try:
        buildah = Buildah(store.resolve())
        say("== base image")
        make_base(buildah, directory)
        say("== images")
        build_images(buildah, arguments.packages)
        say("== a job in them")
        run_job(buildah, directory)
        say("== all is well")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
