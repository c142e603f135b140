#!/usr/bin/env python3
"""Installs the Debian packages and the trainer's runtime in a bare Debian 12 and runs a job from them.

Needs root, a network, debootstrap, dpkg-dev, file, 15 GB of disk; takes some minutes, most of them for LibTorch's wheel. systemd
cannot run in a directory: the units are checked by systemd-analyze and started by their own ExecStart lines.

    tests/deploy/plain_hosts.py [--keep DIR]     --keep: leave the root in DIR to look at
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
BUILD = SOURCE / "build-packages"
sys.path.insert(0, str(HERE))
from bare_root import BareRoot, need, say  # noqa: E402
from tiny_job import write_job  # noqa: E402

UNITS = ("switchyard-coordinator", "switchyard-agent")
# Worst score of `systemd-analyze security` that a unit may have: 0 is perfect, 10 is naked.
EXPOSURE = 3.0


def build_packages():
    """Builds the packages, without CUDA kernels since the job runs on CPU ranks, and returns their paths."""
    cmake = SOURCE / ".venv" / "bin" / "cmake"
    configure = [cmake, "-G", "Ninja", "-B", BUILD, "-S", SOURCE, "-DSWITCHYARD_TESTS=OFF", "-DSWITCHYARD_CUDA=OFF"]
    for command in (configure, [cmake, "--build", BUILD, "--target", "package"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stdout[-5000:] + done.stderr[-5000:])
    return sorted((BUILD / "packages").glob("*.deb"))


def install_packages(root, packages):
    """apt-get install of the packages, and what must be true afterwards."""
    for package in packages:
        shutil.copy(package, root / "/tmp")
    names = [f"/tmp/{package.name}" for package in packages]
    root.run("apt-get", "install", "-y", "-q", "--no-install-recommends", "systemd", *names, quiet=True)
    for unit in UNITS:
        assert not root.run("dpkg", "--verify", unit, quiet=True).stdout, "files differ from the package"
        state = root / "/var/lib/switchyard" / unit.removeprefix("switchyard-")
        owner = root.run("stat", "-c", "%U %a", f"/var/lib/switchyard/{state.name}", quiet=True).stdout.strip()
        assert owner == "switchyard 750", owner
    listed = root.run("dpkg-query", "-W", "-f=${Package} ${Version} ${Conffiles}\n", "switchyard-*", quiet=True).stdout
    assert "/etc/default/switchyard-agent" in listed, listed
    say("".join(f"   {line}\n" for line in listed.split("\n") if line.strip()).rstrip())


def check_units(root):
    """systemd-analyze of the installed units."""
    for unit in UNITS:
        file = f"/usr/lib/systemd/system/{unit}.service"
        root.run("systemd-analyze", "verify", "--man=no", file)
        text = root.run("systemd-analyze", "security", "--offline=true", "--no-pager", file, quiet=True).stdout
        score = text.split("exposure level for")[1].split(":")[1].split()[0]
        say(f"   {unit}: verified, exposure {score}")
        assert float(score) <= EXPOSURE, text


def install_runtime(root):
    """The runtime, twice: the second time must find it."""
    first = root.run("switchyard-install-runtime")
    assert first.returncode == 0
    again = root.run("switchyard-install-runtime", quiet=True).stdout
    assert "is installed" in again, again
    say("   " + json.dumps(json.loads((root / "/opt/switchyard/runtime/current/runtime.json").read_text())))


def run_job(root):
    """Daemons by their units' words, in namespaces of their own: nothing of them can be left."""
    flags = root / "/etc/default/switchyard-agent"
    text = flags.read_text()
    flags.write_text(text.replace("--metrics", "--fabric-interface lo --cpu-slots 2 --node bare --metrics"))
    assert flags.read_text() != text
    shutil.copy(HERE / "run_units.py", root / "/tmp/run_units.py")
    root.run("python3", "/tmp/run_units.py", namespaces=("--pid", "--fork", "--kill-child", "--net", "--ipc", "--mount"))


def check_upgrade(root, packages):
    """A changed file of flags survives; an agent refuses a runtime of another version; removal keeps the state."""
    flags = (root / "/etc/default/switchyard-agent").read_text()
    root.run("dpkg", "-i", *[f"/tmp/{package.name}" for package in packages], quiet=True)
    assert (root / "/etc/default/switchyard-agent").read_text() == flags
    manifest = root / "/opt/switchyard/runtime/current/runtime.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": "0.0.9"}))
    refused = root.run("switchyard-agent", "--work-dir", "/tmp/w", "--cpu-slots", "1", "--metrics", "off", quiet=True, check=False)
    assert refused.returncode == 1 and "is of version 0.0.9" in refused.stdout, refused.stdout
    say("   " + refused.stdout.strip())
    root.run("dpkg", "--purge", *[package.name.split("_")[0] for package in packages], quiet=True)
    assert (root / "/var/lib/switchyard/coordinator/state.db").exists()
    assert not (root / "/etc/default/switchyard-agent").exists()
    assert not (root / "/usr/bin/switchyard-agent").exists()


def main():
    """All of it, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=pathlib.Path, help="leave the root in this new directory")
    arguments = parser.parse_args()
    need(("debootstrap", "debootstrap"), ("dpkg-shlibdeps", "dpkg-dev"), ("file", "file"), ("unshare", "util-linux"), ("ip", "iproute2"))
    say("== packages")
    packages = build_packages()
    path = arguments.keep or pathlib.Path(tempfile.mkdtemp(prefix="switchyard-root.")) / "root"
    try:
        with BareRoot(path) as root:
            say("== apt-get install in a bare Debian")
            install_packages(root, packages)
            say("== units")
            check_units(root)
            say("== runtime")
            install_runtime(root)
            say("== a job")
            home = root / "/srv/switchyard"
            home.mkdir()
            write_job(home, inside="/srv/switchyard")
            root.run("chown", "-R", "switchyard:switchyard", "/srv/switchyard")
            run_job(root)
            say("== upgrade and removal")
            check_upgrade(root, packages)
    finally:
        if not arguments.keep:
            shutil.rmtree(path.parent)
    say("== all is well")


if __name__ == "__main__":
    main()
