"""Prepared data of earlier jobs on this machine, by fingerprint: another job on the same data takes it from here.

An entry is a directory as prepare_data.py publishes it, complete from its first moment (one rename) and never changed. Files
are hard links where cache and output share a file system, copies elsewhere; who takes an entry checks its hashes.
The cache is a convenience: whatever goes wrong with it costs time, never a job.
"""

import contextlib
import fcntl
import os
import re
import shutil
import sys

ENTRY = re.compile(r"[0-9a-f]{32}")
STAGE = re.compile(r"\.[0-9a-f]{32}\.([0-9]+)(\.old)?")


class DataCache:
    """Entries under `directory`, together at most `limit` bytes; the one used longest ago goes first."""

    def __init__(self, directory, limit):
        self.directory = os.path.abspath(directory)
        self.limit = limit

    def entry(self, fingerprint):
        """Directory of a fingerprint's entry, there or not."""
        return os.path.join(self.directory, fingerprint)

    @contextlib.contextmanager
    def locked(self, fingerprint):
        """Only one process at a time prepares or takes this data; the next finds what it made. Ends with the process."""
        with contextlib.ExitStack() as stack:
            try:
                os.makedirs(self.directory, exist_ok=True)
                lock = stack.enter_context(open(self._lock_path(fingerprint), "a", encoding="utf-8"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print("waiting for another preparation on this machine", file=sys.stderr)
                    fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                self._complain(error)
            yield

    def take(self, fingerprint, directory):
        """Puts the entry's files into `directory`, which must not exist; False when there is none."""
        entry = self.entry(fingerprint)
        if not os.path.isdir(entry):
            return False
        try:
            _clone(entry, directory)
            os.utime(entry)
        except OSError as error:
            self._complain(error)
            shutil.rmtree(directory, ignore_errors=True)
            return False
        return True

    def put(self, fingerprint, directory):
        """Keeps the published `directory`, and makes room for it."""
        entry = self.entry(fingerprint)
        size = _bytes_of(directory)
        if os.path.isdir(entry) or size > self.limit:
            return
        stage = f"{self.entry('.' + fingerprint)}.{os.getpid()}"
        try:
            if shutil.disk_usage(self.directory).free < 2 * size:
                return  # the agent's journal and logs need the disk more
            self._make_room(self.limit - size)
            _clone(directory, stage)
            os.rename(stage, entry)
        except OSError as error:
            self._complain(error)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def remove(self, fingerprint):
        """Drops a damaged entry."""
        shutil.rmtree(self.entry(fingerprint), ignore_errors=True)

    def _make_room(self, room):
        with open(self._lock_path(""), "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = []
            for found in os.scandir(self.directory):
                stage = STAGE.fullmatch(found.name)
                if ENTRY.fullmatch(found.name):
                    entries.append((found.stat().st_mtime, found.name, _bytes_of(found.path)))
                elif stage and not os.path.exists(f"/proc/{stage[1]}"):
                    shutil.rmtree(found.path, ignore_errors=True)  # left behind by a killed process
            total = sum(size for _, _, size in entries)
            for _, name, size in sorted(entries):
                if total <= room:
                    return
                doomed = f"{self.entry('.' + name)}.{os.getpid()}.old"
                os.rename(self.entry(name), doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                total -= size

    def _lock_path(self, fingerprint):
        # A file for each of 256 groups of fingerprints: as many as there will ever be.
        return os.path.join(self.directory, f".lock-{fingerprint[:2] or 'all'}")

    def _complain(self, error):
        print(f"the data cache {self.directory} was not used: {error}", file=sys.stderr)


def _bytes_of(directory):
    return sum(
        os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(directory) for name in names
    )


def _clone(source, target):
    """Hard links, or durable copies where links cannot be."""
    for path, _, names in os.walk(source):
        to = os.path.normpath(os.path.join(target, os.path.relpath(path, source)))
        os.makedirs(to)
        for name in names:
            try:
                os.link(os.path.join(path, name), os.path.join(to, name))
            except OSError:
                shutil.copyfile(os.path.join(path, name), os.path.join(to, name))
                _fsync(os.path.join(to, name))
        _fsync(to)


def _fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
