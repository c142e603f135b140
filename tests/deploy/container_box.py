"""A container of a pod as a process of this machine: its volumes, user and read-only root, without an image.

What an image would have is this machine's own file system, beneath an overlay, with the programs of a build at the places
where the packages put them. Namespaces of its own for processes and mounts; network, limits and seccomp are the machine's.
"""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("switchyard", "switchyard-agent", "switchyard-coordinator", "switchyard-trainer")
# Every name that pods call each other by, on this one machine.
HOSTS = "127.0.0.1 localhost switchyard-coordinator.switchyard.svc\n"


def entrypoints():
    """{"coordinator": [...], "node": [...]}: what the images start, as deploy/containers/Dockerfile says."""
    found, stage = {}, None
    for line in (SOURCE / "deploy/containers/Dockerfile").read_text().splitlines():
        if named := re.match(r"FROM .* AS (\w+)$", line):
            stage = named[1]
        if line.startswith("ENTRYPOINT "):
            found[stage] = json.loads(line.removeprefix("ENTRYPOINT "))
    return found


class Box:
    """One run of a container."""

    def __init__(self, directory, programs, container, pod_security, mounts, environment, log):
        """`mounts` is [(source, target, read_only)]; starts at once."""
        image = container["image"].partition(":")[0].rpartition("/")[2]
        command = container.get("command") or entrypoints()[image]
        security = container.get("securityContext", {})
        user, group = pod_security.get("runAsUser", 10001), pod_security.get("fsGroup", 10001)
        self.log = pathlib.Path(log)
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        box = shlex.quote(str(directory))
        root = f"{box}/root"
        # The upper layer is a file system of its own: it must not lie beneath the lower one.
        script = [f"mount -t tmpfs tmpfs {box}", f"mkdir {box}/upper {box}/work {root}",
                  f"mount -t overlay overlay -o lowerdir=/,upperdir={box}/upper,workdir={box}/work {root}",
                  f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev",
                  f"printf %s {shlex.quote(HOSTS)} >{root}/etc/hosts",
                  f"mkdir -p {root}/usr/lib/switchyard",
                  f"ln -s {shlex.quote(str(SOURCE / '.venv'))} {root}/usr/lib/switchyard/venv",
                  f"ln -s {shlex.quote(str(SOURCE / 'tools'))} {root}/usr/lib/switchyard/tools"]  # fmt: skip
        for program in PROGRAMS:
            mounts = [*mounts, (programs / program, f"/usr/bin/{program}", True)]
        for source, target, read_only in mounts:
            # Links of the root, such as /var/run, must not lead out of it.
            inside = root + shlex.quote(os.path.realpath(target))
            is_directory = pathlib.Path(source).is_dir()
            script += [f"mkdir -p {inside}" if is_directory else f"mkdir -p $(dirname {inside}); touch {inside}",
                       f"mount --bind {shlex.quote(str(source))} {inside}"]  # fmt: skip
            script += [f"mount -o remount,ro,bind {inside}"] if read_only else []
        if security.get("readOnlyRootFilesystem"):
            script += [f"mount -o remount,ro {root}"]
        variables = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "KUBERNETES_SERVICE_HOST": environment["host"],
                     "KUBERNETES_SERVICE_PORT": environment["port"]}  # fmt: skip
        variables |= {entry["name"]: entry["value"] for entry in container.get("env", [])}
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={group}", "--bounding-set=-all",
                 "--inh-caps=-all", *(["--no-new-privs"] if not security.get("allowPrivilegeEscalation", True) else []),
                 "env", "-i", *(f"{key}={value}" for key, value in variables.items()),
                 *command, *container.get("args", [])]  # fmt: skip
        script += [f"cd {root}; exec chroot {root} {shlex.join(words)}"]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "sh", "-ec",
                 "\n".join(script)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)  # fmt: skip

    def pid(self):
        """Of the container's first process; None when it has ended."""
        try:
            children = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def poll(self):
        """The exit code, as Kubernetes counts it, or None while it runs."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def terminate(self):
        """SIGTERM to the first process, as a kubelet does it."""
        if (pid := self.pid()) is not None:
            os.kill(pid, signal.SIGTERM)

    def kill(self):
        """SIGKILL to all of it: the first process takes its namespace with it."""
        if (pid := self.pid()) is not None:
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def last_words(self):
        """The end of its output."""
        return self.log.read_text(errors="replace")[-1000:]
