"""Tiny models and data: a job on them takes seconds, loading of programs included."""

import hashlib
import json
import os
import pathlib
import random
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tools"))
import make_demo_model  # noqa: E402

SUBJECTS = ["a compiler", "a kernel", "a socket", "a thread", "a pointer", "a cache", "a router", "a packet"]
KINDS = ["program", "device", "number", "protocol", "buffer", "table", "signal", "file"]
VERBS = ["reads", "writes", "moves", "counts", "sorts", "keeps", "finds", "sends"]


def write_data(path, examples, seed):
    """Writes chat examples with a grammar that a tiny model can learn."""
    draw = random.Random(seed)
    lines = []
    for number in range(examples):
        subject, kind, verb = draw.choice(SUBJECTS), draw.choice(KINDS), draw.choice(VERBS)
        answer = f"It is a {kind} that {verb} {draw.choice(KINDS)}s and {draw.choice(VERBS)} {draw.choice(KINDS)}s."
        messages = [
            {"role": "user", "content": f"What is {subject} {number}?"},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines))


def write_model(directory, data, seed=0, head_dim=16):
    """Writes a Qwen3-MoE of 2 layers, 8 experts and hidden size 64 with a tokenizer trained on `data`."""
    tokenizer = make_demo_model.train_tokenizer(make_demo_model.read_texts(data), 384, 256)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        router_aux_loss_coef=0.01,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    Qwen3MoeForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def weights_hash(directory):
    """Returns one hash over names, dtypes, shapes and bytes of all tensors of a model directory."""
    tensors = {}
    for file in sorted(pathlib.Path(directory).glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():
                assert name not in tensors, f"{name} is in two files of {directory}"
                tensor = weights.get_tensor(name)
                head = f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
                tensors[name] = hashlib.sha256(head + tensor.contiguous().view(torch.uint8).numpy().tobytes()).digest()
    assert tensors, f"no tensors in {directory}"
    return hashlib.sha256(b"".join(tensors[name] for name in sorted(tensors))).hexdigest()
