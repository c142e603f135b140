"""Waiting in trials of whole clusters: for anything, and for a job's state."""

import time

TERMINAL = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"}


def wait(condition, seconds, what):
    """Waits until `condition` returns something true, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise SystemExit(f"error: not within {seconds} s: {what() if callable(what) else what}")


def wait_for_state(cluster, name, states, seconds):
    """Waits for a state of a job, which is returned; another end is an error. `cluster` has job(name) and logs()."""
    def arrived():
        job = cluster.job(name)
        if job["state"] in states:
            return job
        assert job["state"] not in TERMINAL, f"{job['state']}: {job['reason']}\n{cluster.logs()}"
        return None

    return wait(arrived, seconds, lambda: f"{states}, is {cluster.job(name)}\n{cluster.logs()}")
