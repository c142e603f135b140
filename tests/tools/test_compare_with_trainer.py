"""The trainer against Transformers on shapes that no golden test has, through the comparison tool."""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAINER = pathlib.Path(os.environ.get("SWITCHYARD_BINARY_DIR", ROOT / "build")) / "bin/switchyard-trainer"


def random_config(seed):
    """Returns a small configuration of odd sizes; everything that the decoder can do turns up for some seed."""
    draw = random.Random(seed)
    kv_heads = draw.choice([1, 2, 3])
    experts = draw.choice([4, 8, 12])
    layers = draw.choice([2, 3])
    return {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "vocab_size": draw.choice([37, 96, 131]),
        "hidden_size": draw.choice([24, 40, 64]),
        "intermediate_size": draw.choice([20, 48]),
        "moe_intermediate_size": draw.choice([8, 12, 28]),
        "num_hidden_layers": layers,
        "num_attention_heads": kv_heads * draw.choice([1, 2, 4]),
        "num_key_value_heads": kv_heads,
        "head_dim": draw.choice([8, 16, 32]),
        "num_experts": experts,
        "num_experts_per_tok": draw.choice([1, 2, 3, 4]),
        "norm_topk_prob": draw.choice([True, False]),
        "decoder_sparse_step": draw.choice([1, 1, 2]),
        "mlp_only_layers": draw.choice([[], [0]]),
        "tie_word_embeddings": draw.choice([True, False]),
        "rms_norm_eps": draw.choice([1e-6, 1e-5]),
        "rope_parameters": {"rope_type": "default", "rope_theta": draw.choice([1e4, 1e6])},
        "router_aux_loss_coef": draw.choice([0.001, 0.1]),
        "hidden_act": "silu",
        "max_position_embeddings": 128,
        "attention_bias": draw.choice([True, False]),
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_bfloat16_is_as_near_to_float32_as_that_of_transformers(tmp_path, ranks):
    config = random_config(7) | {"hidden_size": 128, "head_dim": 32, "moe_intermediate_size": 64, "num_experts": 8}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "decoder_sparse_step": 1, "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "tools/compare_bfloat16.py"), "--config", str(tmp_path), "--all-experts"]
    command += ["--seeds", "2", "--ranks", str(ranks), "--length", "96", "--trainer", str(TRAINER)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, f"{finished.stdout}{finished.stderr}"
    for label in ("logits", "attention", "qk norm", "experts gate and up", "experts down", "router", "embedding"):
        assert f"{label:22}" in finished.stdout


def compare(directory, config, seed, arguments):
    """Runs the comparison, which must find agreement; returns what it prints."""
    (directory / "config.json").write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "tools/compare_with_transformers.py"), "--config", str(directory)]
    command += ["--seed", str(seed), "--trainer", str(TRAINER), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, f"{config}\n{finished.stdout}{finished.stderr}"
    return finished.stdout


@pytest.mark.parametrize(
    ("seed", "arguments"),
    [
        (101, ["--ranks", "1", "--steps", "3"]),
        (102, ["--ranks", "4", "--expert-parallel", "4", "--packed", "--steps", "3"]),
        (103, ["--ranks", "4", "--expert-parallel", "2", "--layout", "fused"]),
        (104, ["--ranks", "2", "--expert-parallel", "1", "--packed"]),
        (105, ["--ranks", "2", "--expert-parallel", "2", "--length", "61"]),
    ],
)
def test_the_trainer_agrees_with_transformers_on_a_random_shape(tmp_path, seed, arguments):
    compare(tmp_path, random_config(seed), seed, arguments)


def test_a_router_without_a_gradient_agrees_but_for_rounding(tmp_path):
    unlearned = {"num_experts_per_tok": 1, "norm_topk_prob": True, "router_aux_loss_coef": 0.0}
    said = compare(tmp_path, random_config(101) | unlearned, 101, ["--steps", "2"])
    assert "  rounding: " in said and "TOO LARGE" not in said
