"""Progress for a person (a bar on a terminal) or for a program (JSON lines on standard output)."""

import json
import sys
import time


class Progress:
    """One fraction over several parts, each with its share."""

    def __init__(self, as_json):
        self.as_json = as_json
        self._done = 0.0
        self._share = 0.0
        self._last_time = 0.0
        self._bar = None
        if not as_json and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=100, unit="%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}")

    def part(self, name, share):
        """The next `share` of the whole is `name`; returns the function that takes its fraction."""
        self._done += self._share
        self._share = share
        if self._bar is not None:
            self._bar.set_description(name)
        elif not self.as_json:
            print(f"{name} ...", file=sys.stderr)
        self.update(0.0)
        return self.update

    def update(self, fraction):
        now = time.monotonic()
        if now - self._last_time < 0.2:
            return
        self._last_time = now
        whole = min(1.0, self._done + self._share * fraction)
        if self.as_json:
            emit({"progress": round(whole, 4)})
        elif self._bar is not None:
            self._bar.n = round(100 * whole, 1)
            self._bar.refresh()

    def close(self):
        if self._bar is not None:
            self._bar.n = 100
            self._bar.close()


def emit(record):
    """One JSON line on standard output."""
    print(json.dumps(record), flush=True)
