"""A bare Debian 12 in a directory, made by debootstrap: what an installation on a fresh machine meets.

Needs root and debootstrap. The base is made once and kept in a cache directory; each test works on a copy.
"""

import os
import pathlib
import shutil
import subprocess
import sys

SUITE = "bookworm"
MIRROR = os.environ.get("SWITCHYARD_DEBIAN_MIRROR", "http://deb.debian.org/debian")
CACHE = pathlib.Path(os.environ.get("SWITCHYARD_CACHE", pathlib.Path.home() / ".cache" / "switchyard"))
# Network settings of this machine that programs in the root need as well.
PASSED_ON = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def say(text):
    """Prints a line at once, so that it is in order with what commands print."""
    print(text, flush=True)


def need(*programs):
    """Ends the test with what to install when a program is missing."""
    if os.geteuid() != 0:
        sys.exit("error: must run as root: it installs packages into a root directory of its own")
    for program, package in programs:
        if shutil.which(program) is None:
            sys.exit(f"error: {program} is missing; install it: apt-get install {package}")


class BareRoot:
    """A root directory with proc, sys and dev in it; use as a context manager, which takes the mounts away again."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._mounts = []

    def __truediv__(self, name):
        """The path outside of what is /name inside."""
        return self.path / str(name).lstrip("/")

    def __enter__(self):
        base = CACHE / f"{SUITE}.tar"
        if not base.exists():
            say(f"   debootstrap of {SUITE}, kept as {base}")
            fresh = CACHE / f"{SUITE}.root"
            shutil.rmtree(fresh, ignore_errors=True)
            CACHE.mkdir(parents=True, exist_ok=True)
            subprocess.run(["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, fresh, MIRROR],
                           check=True, stdout=subprocess.DEVNULL)  # fmt: skip
            subprocess.run(["tar", "-C", fresh, "-cf", f"{base}.new", "."], check=True)
            os.replace(f"{base}.new", base)
            shutil.rmtree(fresh)
        self.path.mkdir(parents=True)
        subprocess.run(["tar", "-C", self.path, "-xf", base], check=True)
        try:
            self._mount("-t", "proc", "proc", "/proc")
            self._mount("--rbind", "/sys", "/sys")
            self._mount("--rbind", "/dev", "/dev")
            self._configure()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        while self._mounts:
            target = self._mounts.pop()
            subprocess.run(["mount", "--make-rslave", target], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["umount", "-R", "-l", target], check=False)

    def _mount(self, *arguments):
        target = self / arguments[-1]
        subprocess.run(["mount", *arguments[:-1], target], check=True)
        self._mounts.append(target)

    def _configure(self):
        shutil.copy("/etc/resolv.conf", self / "/etc/resolv.conf")
        # Services are started by the test, as systemd would, not by maintainer scripts.
        policy = self / "/usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        for certificate in pathlib.Path("/usr/local/share/ca-certificates").glob("*.crt"):
            shutil.copy(certificate, self / "/usr/local/share/ca-certificates")
        self.run("update-ca-certificates", quiet=True)
        self.run("apt-get", "update", "-q", quiet=True)

    def run(self, *command, quiet=False, check=True, namespaces=(), **variables):
        """Runs a command inside and returns the finished process; its output is shown unless `quiet`."""
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                       "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}  # fmt: skip
        environment.update({name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)})
        environment.update(variables)
        enter = ["chroot", self.path]
        if namespaces:
            inside = 'mount -t proc proc "$0/proc" && ip link set lo up && exec chroot "$0" "$@"'
            enter = ["unshare", *namespaces, "sh", "-c", inside, self.path]
        pipe = subprocess.PIPE if quiet else None
        done = subprocess.run([*map(str, enter), *map(str, command)], env={**environment, "PATH": os.environ["PATH"]},
                              stdout=pipe, stderr=subprocess.STDOUT if quiet else None, text=True, check=False)  # fmt: skip
        if check and done.returncode != 0:
            say(done.stdout or "")
            raise SystemExit(f"error: {' '.join(map(str, command))} ended with {done.returncode}")
        return done
