#!/usr/bin/env python3
"""Records what an agent and a coordinator of one release say to each other while a small job runs.

The recording is what upgrade_test plays to newer coordinators: an agent of this release, to the letter. With it the
coordinator's store is kept, as SQL, for newer ones to migrate. Make both for each release, from its own programs, before
protocol or store change:

    tests/coordinator/upgrade/record_agent.py --programs DIR --version VERSION
"""

import argparse
import concurrent.futures
import contextlib
import json
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

SOURCE = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(SOURCE / "tests" / "e2e"))
from support import inputs  # noqa: E402
from support.api import Api  # noqa: E402

METHOD = "/switchyard.agent.v1.AgentService/Connect"


def message_classes(directory):
    """Returns the classes of requests and responses of the stream."""
    compiled = directory / "agent.pb"
    subprocess.run(["protoc", f"-I{SOURCE / 'proto'}", "--include_imports", f"--descriptor_set_out={compiled}",
                    "switchyard/agent/v1/agent.proto"], check=True)  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        pool.Add(file)
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"switchyard.agent.v1.{name}"))
            for name in ("ConnectRequest", "ConnectResponse")]  # fmt: skip


class Recorder(grpc.GenericRpcHandler):
    """Stands between agent and coordinator and keeps every message."""

    def __init__(self, coordinator):
        self.said = []  # (who, bytes)
        self._lock = threading.Lock()
        self._stream = grpc.insecure_channel(coordinator).stream_stream(METHOD)

    def service(self, details):
        """Handles the one method there is."""
        return grpc.stream_stream_rpc_method_handler(self._relay) if details.method == METHOD else None

    def _keep(self, who, messages):
        for message in messages:
            with self._lock:
                self.said.append((who, message))
            yield message

    def _relay(self, requests, _):
        yield from self._keep("coordinator", self._stream(self._keep("agent", requests)))


def run_job(programs, directory):
    """Runs a job through a recorder and returns what was said, and the job's uid."""
    state = directory / "state"
    daemons = [subprocess.Popen([programs / "switchyard-coordinator", "--listen", "127.0.0.1:0", "--metrics", "off",
                                 "--state-dir", state])]  # fmt: skip
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    try:
        while not (state / "listen-address").exists():
            time.sleep(0.1)
        address = (state / "listen-address").read_text()
        recorder = Recorder(address)
        server.add_generic_rpc_handlers((recorder,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        daemons.append(subprocess.Popen([
            programs / "switchyard-agent", "--coordinator", f"127.0.0.1:{port}", "--node", "recorded", "--cpu-slots", "2",
            "--metrics", "off", "--work-dir", directory / "agent", "--python", sys.executable,
            "--prepare-data", SOURCE / "tools" / "prepare_data.py"]))  # fmt: skip
        api = Api(address)
        while not api.call("switchyard.v1.NodeService", "ListNodes")["nodes"]:
            time.sleep(0.1)
        spec = {
            "name": "demo",
            "model": f"{directory}/model",
            "data": {"train": f"{directory}/train.jsonl", "sequence_length": 32},
            "training": {"steps": "5", "global_batch_sequences": 8},
            "mesh": {"device": "cpu", "ranks": 2, "expert_parallel": 1},
            "checkpoint": {"output": f"{directory}/out/demo", "interval_steps": "2"},
        }
        job = api.call("switchyard.v1.JobService", "CreateJob", spec=spec)
        while not job["terminal"]:
            time.sleep(0.2)
            job = api.call("switchyard.v1.JobService", "GetJob", name=job["name"])
        if job["state"] != "JOB_STATE_SUCCEEDED":
            sys.exit(f"the job is {job['state']}: {job['reason']}")
        time.sleep(3)  # the last logs and acknowledgements
        return recorder.said, job["uid"]
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        server.stop(None)


def dump_store(database, output):
    """Writes the store as SQL that makes it again, with what its header says."""
    with contextlib.closing(sqlite3.connect(database)) as store:
        # Watchers' history is most of the bytes and is the same kind of record as jobs.
        store.execute("DELETE FROM changes WHERE revision < (SELECT max(revision) FROM changes) - 2")
        header = [f"PRAGMA {name}={store.execute(f'PRAGMA {name}').fetchone()[0]};" for name in ("application_id", "user_version")]
        output.write_text("\n".join([*store.iterdump(), *header]) + "\n")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="directory of a release's programs")
    parser.add_argument("--version", required=True, help="of those programs: agent_VERSION.jsonl and store_VERSION.sql")
    arguments = parser.parse_args()
    here = pathlib.Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="switchyard-record.") as name:
        directory = pathlib.Path(name)
        request, response = message_classes(directory)
        inputs.write_data(directory / "train.jsonl", 120, seed=1)
        inputs.write_model(directory / "model", directory / "train.jsonl")
        said, uid = run_job(arguments.programs.resolve(), directory)
        dump_store(directory / "state" / "state.db", here / f"store_{arguments.version}.sql")
    lines = []
    for who, data in said:
        message = (request if who == "agent" else response).FromString(data)
        text = json.dumps({"from": who, "message": json_format.MessageToDict(message, preserving_proto_field_name=True)})
        text = text.replace(uid, "@UID@").replace(name, "@ROOT@")
        # Of the machine, not of the protocol.
        text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "boot-0", text)
        text = re.sub(r'("(?:product|cpu_product)": )"[^"]*"', r'\1"CPU"', text)
        text = re.sub(r'("fabric_address": )"[^"]*"', r'\1"127.0.0.1"', text)
        lines.append(text + "\n")
    output = here / f"agent_{arguments.version}.jsonl"
    output.write_text("".join(lines))
    print(f"{output}: {len(lines)} messages")


if __name__ == "__main__":
    main()
