"""Real processes: starting, finding, killing by id, and proof that none is left."""

import os
import pathlib
import signal
import socket
import subprocess
import time


def free_port():
    """Returns a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, timeout, what, interval=0.02):
    """Polls until `condition()` is true and returns its value; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(interval)


def program(name):
    """Returns the path of a built program."""
    root = pathlib.Path(os.environ.get("SWITCHYARD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[3]))
    build = pathlib.Path(os.environ.get("SWITCHYARD_BINARY_DIR", root / "build"))
    path = build / "bin" / name
    assert path.exists(), f"{path} is not built"
    return path


def command_line(pid):
    """Returns the arguments of a process; empty when it is gone or a zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def parent_of(pid):
    """Returns the parent's process id, 0 when the process is gone."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def descendants(pid):
    """Returns the ids of all living processes below `pid`."""
    below, found = {pid}, []
    pairs = [(int(entry), parent_of(int(entry))) for entry in os.listdir("/proc") if entry.isdigit()]
    grown = True
    while grown:
        grown = False
        for child, parent in pairs:
            if parent in below and child not in below:
                below.add(child)
                found.append(child)
                grown = True
    return [child for child in found if command_line(child)]


def processes_naming(text):
    """Returns {pid: arguments} of all living processes with `text` in their arguments, but this one."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            arguments = command_line(int(entry))
            if any(text in argument for argument in arguments):
                found[int(entry)] = arguments
    return found


class Daemon:
    """One program in the background, with its output in a file."""

    def __init__(self, name, arguments, log):
        self.name, self.log = name, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(argument) for argument in arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self.pid = self._process.pid

    def running(self):
        """True while the process lives."""
        return self._process.poll() is None

    def kill(self):
        """SIGKILL, and waits for the end."""
        if self.running():
            self._process.kill()
        self._process.wait(timeout=30)

    def stop(self, timeout=30):
        """SIGTERM, waits, and returns the exit status; SIGKILL after the timeout is a failure."""
        if self.running():
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=30)
            raise AssertionError(f"{self.name} did not end within {timeout} s of SIGTERM:\n{self.tail()}") from None

    def tail(self, lines=40):
        """Returns the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
