#!/usr/bin/env python3
"""Prints what a finished job achieved, from `switchyard get JOB --output json`.

Exits with 1 when the held-out loss fell by less than --minimum-fall nats.
"""

import argparse
import json
import pathlib
import sys


def field(message, name, default=None):
    """Returns a field of a protobuf message in JSON, whichever of the two spellings was written."""
    first, *rest = name.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    return message.get(camel, message.get(name, default))


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=pathlib.Path, help="JSON file")
    parser.add_argument("--minimum-fall", type=float, default=0.0, help="nats per target")
    arguments = parser.parse_args()

    job = json.loads(arguments.job.read_text())
    progress, plan = field(job, "progress", {}), field(job, "plan", {})
    before, after = field(progress, "initial_eval_loss"), field(progress, "eval_loss")
    print(f"state            {field(job, 'state')}")
    print(f"steps            {field(progress, 'step')}, {field(progress, 'tokens')} tokens")
    measured, predicted = field(progress, "tokens_per_second", 0.0), field(plan, "tokens_per_second", 0.0)
    print(f"tokens/s         {measured:.0f} measured, {predicted:.0f} predicted")
    peak, planned = int(field(progress, "peak_memory_bytes", 0)), int(field(plan, "memory_bytes_per_rank", 0))
    print(f"memory of a rank {peak / 2**20:.0f} MiB at its peak, {planned / 2**20:.0f} MiB planned")
    print(f"output           {field(job, 'output_model')}")
    if before is None or after is None:
        sys.exit("the job has no held-out loss")
    print(f"held-out loss    {before:.3f} before, {after:.3f} after: {before - after:.3f} nats lower")
    if before - after < arguments.minimum_fall:
        sys.exit(f"the held-out loss should have fallen by {arguments.minimum_fall} nats")


if __name__ == "__main__":
    main()
