"""Bad input: each is refused, or fails the job at once, with a message that names what is wrong. Nothing crashes."""

import json
import shutil

import pytest
from support.api import ApiError
from support.cluster import JOBS, Cluster
from support.processes import wait_until


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One cluster for all tests of this file: it must survive them all."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def model(tiny, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(tiny.model, tmp_path / "model")


def fate(cluster, spec):
    """Returns what is said of a job that cannot be: by CreateJob, or as the reason of its failure."""
    try:
        name = cluster.create(spec)["name"]
    except ApiError as error:
        assert error.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "ALREADY_EXISTS"), error
        return f"{error.message} {json.dumps(error.details)}"
    job = wait_until(lambda: (found := cluster.job(name))["terminal"] and found, 90, lambda: f"end of {cluster.job(name)}")
    assert job["state"] == "JOB_STATE_FAILED", job
    assert job["reason"]["domain"] == "FAILURE_DOMAIN_USER", job["reason"]
    assert len(job["attempts"]) <= 1, "what cannot work is not tried again"
    return f"{job['reason']['message']} {' '.join(job['reason']['evidence'])}"


def change_config(model, **changes):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


def rewrite_header(file, change):
    """Lets `change` edit the JSON header of a safetensors file."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def test_a_missing_model_is_named(service, tiny, tmp_path):
    spec = tiny.spec(tmp_path / "output") | {"model": str(tmp_path / "nothing")}
    assert str(tmp_path / "nothing") in fate(service, spec)


def test_a_truncated_model_file_is_named(service, tiny, tmp_path, model):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "model.safetensors" in fate(service, tiny.spec(tmp_path / "output") | {"model": str(model)})


@pytest.mark.parametrize("damage", ["overlapping", "out of range", "negative", "not json"])
def test_a_damaged_header_is_named(service, tiny, tmp_path, model, damage):
    def change(header):
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        begin, end = tensors[1]["data_offsets"]
        if damage == "overlapping":
            tensors[1]["data_offsets"] = [begin - 4, end - 4]
        elif damage == "out of range":
            tensors[1]["data_offsets"] = [begin + 2**40, end + 2**40]
        elif damage == "negative":
            tensors[1]["data_offsets"] = [-8, end - begin - 8]

    rewrite_header(model / "model.safetensors", change)
    if damage == "not json":
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[:8] + b"[" + data[9:])
    assert "model.safetensors" in fate(service, tiny.spec(tmp_path / "output") | {"model": str(model)})


def test_a_missing_tensor_is_named(service, tiny, tmp_path, model):
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    rewrite_header(model / "model.safetensors", lambda header: header.update({"renamed": header.pop(name)}))
    assert name in fate(service, tiny.spec(tmp_path / "output") | {"model": str(model)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"moe_intermediate_size": 48}, "48"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
    ],
    ids=["another-model-type", "sizes-that-contradict-the-tensors", "another-activation", "heads-that-do-not-divide"],
)
def test_a_config_that_cannot_be_served_is_refused_by_name(service, tiny, tmp_path, model, changes, said):
    change_config(model, **changes)
    assert said in fate(service, tiny.spec(tmp_path / "output") | {"model": str(model)})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", '"; the file is empty'),
        (
            '{"messages": [{"role": "user", "content": "What?"}]}\n',
            ": nothing to train on in 1 examples; reason of 1: no assistant turn",
        ),
        ('{"messages": [{"role": "user"\n', ":1: not JSON: "),
        ('{"question": "What?"}\n', ":1: has none of messages, prompt and completion, text"),
    ],
    ids=["empty", "no-assistant-turn", "not-json", "unknown-keys"],
)
def test_data_without_anything_to_learn_is_refused_with_file_and_reason(service, tiny, tmp_path, text, reason):
    (tmp_path / "train.jsonl").write_text(text)
    spec = tiny.spec(tmp_path / "output")
    spec["data"]["train"] = str(tmp_path / "train.jsonl")
    assert f"{tmp_path / 'train.jsonl'}{reason}" in fate(service, spec)


def test_values_out_of_range_are_all_named_at_once(service, tiny, tmp_path):
    spec = tiny.spec(tmp_path / "output", learning_rate=-1, warmup_ratio=2, schedule="square", global_batch_sequences=0)
    spec["model"] = str(tmp_path / "nothing")
    said = fate(service, spec)
    for field in ("training.learning_rate", "training.warmup_ratio", "training.schedule", "training.global_batch_sequences"):
        assert field in said, said
    assert "there is no such directory" in said, said


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("ranks", 4, "mesh.ranks is 4 but only 2 "),
        ("ranks", 3, "mesh.expert_parallel: is 2; must divide mesh.ranks (3)"),
        ("expert_parallel", 5, "mesh.expert_parallel: is 5; must divide mesh.ranks (2)"),
        ("device", "tpu", 'mesh.device: is "tpu"; must be one of auto, cuda, cpu'),
    ],
    ids=["more-ranks-than-slots", "ranks", "experts", "device"],
)
def test_an_impossible_mesh_is_refused_with_field_and_reason(service, tiny, tmp_path, field, value, reason):
    spec = tiny.spec(tmp_path / "output")
    spec["mesh"][field] = value
    assert reason in fate(service, spec)


def test_a_sequence_longer_than_the_models_is_refused(service, tiny, tmp_path):
    spec = tiny.spec(tmp_path / "output")
    spec["data"]["sequence_length"] = 4096
    said = fate(service, spec)
    assert "4096" in said and "256" in said


@pytest.mark.parametrize("path", ["relative/output", "/tmp/../etc/switchyard", "/tmp/a\0b", "/tmp/a\nb"])
def test_a_path_that_escapes_is_refused(service, tiny, tmp_path, path):
    spec = tiny.spec(tmp_path / "output")
    spec["checkpoint"]["output"] = path
    assert "checkpoint.output" in fate(service, spec)


def test_an_output_that_cannot_be_written_is_named(service, tiny, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    assert str(tmp_path / "file") in fate(service, tiny.spec(tmp_path / "file/output"))


def test_an_output_with_another_jobs_result_is_not_touched(service, tiny, tmp_path):
    output = tmp_path / "output"
    service.run(tiny.spec(output, name="earlier", steps=2, interval=0))
    before = {path: path.stat().st_mtime_ns for path in (output / "final").iterdir()}
    assert str(output) in fate(service, tiny.spec(output, name="later", steps=2, interval=0))
    assert {path: path.stat().st_mtime_ns for path in (output / "final").iterdir()} == before


def test_a_spec_of_five_mebibytes_is_refused_and_the_service_goes_on(service, tiny, tmp_path):
    spec = tiny.spec(tmp_path / "output") | {"labels": {"text": "x" * (5 << 20)}}
    with pytest.raises(ApiError) as error:
        service.create(spec)
    assert error.value.code == "RESOURCE_EXHAUSTED"
    assert service.api.call(JOBS, "ListJobs", parent="projects/-", page_size=1) is not None


def test_the_cli_names_unknown_fields_with_line_and_suggestion(service, tiny, tmp_path):
    spec = tmp_path / "job.yaml"
    spec.write_text(f"name: x\nmodel: {tiny.model}\ntraning:\n  steps: 1\ndata: {{trian: /a}}\n")
    refused = service.cli("submit", spec, check=False)
    assert refused.returncode == 2
    said = refused.stdout + refused.stderr
    assert "traning" in said and "training" in said and "data.trian" in said and "3" in said
