#!/usr/bin/env python3
"""Writes the golden files of the model's tests from Transformers' eager Qwen3-MoE in float32.

Each case is a directory: config.json and model.safetensors as save_pretrained writes them, and
golden.safetensors with the batch (input_ids, labels, position_ids, valid: int64 [B, S]), logits [B, S, V], loss,
aux_loss, grad.<parameter> for every parameter (experts stacked as in Transformers' module tree) and, for some,
param.<parameter> after three steps of AdamW.

    tools/make_golden.py tests/golden
"""
import argparse
import copy
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

BASE = dict(vocab_size=61, hidden_size=24, intermediate_size=40, moe_intermediate_size=12, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=8, num_experts_per_tok=2,
            max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            router_aux_loss_coef=0.05, norm_topk_prob=True, tie_word_embeddings=False)

# name -> (changes of BASE, batch kind, AdamW steps)
CASES = {
    "plain": (dict(), "plain", 3),
    "unnormalized_weights": (dict(norm_topk_prob=False, num_experts_per_tok=3), "plain", 0),
    "one_key_head_tied": (dict(num_key_value_heads=1, tie_word_embeddings=True, rms_norm_eps=1e-5), "plain", 3),
    "all_key_heads": (dict(num_key_value_heads=4, head_dim=6, rope_parameters={
        "rope_type": "default", "rope_theta": 1e6}), "plain", 0),
    "dense_layers": (dict(num_hidden_layers=4, mlp_only_layers=[3], decoder_sparse_step=2), "plain", 0),
    "all_dense": (dict(mlp_only_layers=[0, 1]), "plain", 0),
    "packed_documents": (dict(), "packed", 0),
    "padded": (dict(pad_token_id=0), "padded", 0),
    "one_expert_a_token": (dict(num_experts=4, num_experts_per_tok=1, norm_topk_prob=False), "plain", 0),
    "attention_bias": (dict(attention_bias=True, num_experts=4, moe_intermediate_size=8), "plain", 3),
    "large_vocabulary": (dict(vocab_size=160, num_hidden_layers=1), "plain", 3),
}


def make_batch(kind, vocab, generator):
    """Token ids, labels and positions of one case, drawn from its seed."""
    rows, length = (2, 16) if kind != "packed" else (2, 20)
    ids = torch.randint(1, vocab, (rows, length), generator=generator)
    positions = torch.arange(length).repeat(rows, 1)
    labels, valid = ids.clone(), torch.ones_like(ids)
    labels[:, :3] = -100  # a prompt
    if kind == "packed":
        for row, starts in enumerate([[0, 7, 13], [0, 12]]):
            for begin, end in zip(starts, starts[1:] + [length]):
                positions[row, begin:end] = torch.arange(end - begin)
                labels[row, begin] = -100
    if kind == "padded":
        for row, used in enumerate([length - 5, length]):
            ids[row, used:], labels[row, used:], valid[row, used:] = 0, -100, 0
    return dict(input_ids=ids, labels=labels, position_ids=positions, valid=valid)


def block_diagonal_mask(positions):
    """Additive [B, 1, S, S]: causal, and only within runs of growing positions."""
    length = positions.shape[1]
    document = torch.cumsum(torch.diff(positions, prepend=positions[:, :1] - 1) != 1, dim=1)
    allowed = (document[:, :, None] == document[:, None, :]) & torch.tril(torch.ones(length, length, dtype=bool))
    return torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[:, None]


def forward(model, batch, kind):
    """Logits, loss and auxiliary loss of the model on a batch."""
    mask = block_diagonal_mask(batch["position_ids"]) if kind == "packed" else batch["valid"]
    sparse = any(type(layer.mlp).__name__ == "Qwen3MoeSparseMoeBlock" for layer in model.model.layers)
    arguments = dict(input_ids=batch["input_ids"], labels=batch["labels"], position_ids=batch["position_ids"])
    if kind != "packed":
        return model(**arguments, attention_mask=mask, output_router_logits=sparse)
    # The auxiliary loss cannot take a 4-D mask: hand the mask to the decoder, no mask to the loss.
    decoder = model.model.forward
    model.model.forward = lambda **kw: decoder(**{**kw, "attention_mask": mask})
    try:
        return model(**arguments, output_router_logits=sparse)
    finally:
        model.model.forward = decoder


def separate_documents_agree(model, batch, logits):
    """Each document run alone must give the logits that it has in the pack."""
    for row in range(batch["input_ids"].shape[0]):
        starts = (batch["position_ids"][row] == 0).nonzero().flatten().tolist()
        for begin, end in zip(starts, starts[1:] + [batch["input_ids"].shape[1]]):
            alone = model(input_ids=batch["input_ids"][row:row + 1, begin:end]).logits[0]
            torch.testing.assert_close(alone, logits[row, begin:end], rtol=1e-4, atol=1e-5)


def train(model, batch, kind, steps):
    """Parameters after a few AdamW steps on the batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    for _ in range(steps):
        optimizer.zero_grad()
        forward(model, batch, kind).loss.backward()
        optimizer.step()
    return model


def well_conditioned(trained, exact):
    """Whether float32 rounding does not matter: AdamW divides by the gradient's size, so that an element whose
    gradient happens to be near 0 moves by the learning rate in a direction that rounding decides."""
    for a, b in zip(trained.parameters(), exact.parameters()):
        for part, whole in zip(a.double(), b) if a.dim() == 3 else [(a.double(), b)]:
            if (part - whole).norm() > 1e-6 * whole.norm():
                return False
    return True


def make_case(name, out, seed):
    """Writes one golden file: config, weights, batch, outputs, gradients, trained parameters."""
    changes, kind, steps = CASES[name]
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(**{**BASE, **changes}, dtype="float32", initializer_range=0.25)
    config._attn_implementation, config._experts_implementation = "eager", "eager"
    model = Qwen3MoeForCausalLM(config).train()
    with torch.no_grad():  # norms of 1 and biases of 0 would hide mistakes
        for key, value in model.named_parameters():
            if value.dim() == 1:
                value.uniform_(*((-0.5, 0.5) if key.endswith("bias") else (0.5, 1.5)))
    batch = make_batch(kind, config.vocab_size, torch.Generator().manual_seed(seed + 1))
    directory = out / name
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)

    result = forward(model, batch, kind)
    result.loss.backward()
    if kind == "packed":
        with torch.no_grad():
            separate_documents_agree(model, batch, result.logits)
    golden = dict(batch, logits=result.logits.detach(), loss=result.loss.detach().reshape(1))
    if result.aux_loss is not None:
        golden["aux_loss"] = result.aux_loss.detach().reshape(1)
    for key, value in model.named_parameters():
        golden["grad." + key] = torch.zeros_like(value) if value.grad is None else value.grad.clone()
    if steps:
        exact = train(copy.deepcopy(model).double(), batch, kind, steps)
        trained = train(model, batch, kind, steps)
        if not well_conditioned(trained, exact):
            return make_case(name, out, seed + 1)
        golden.update({"param." + key: value.detach() for key, value in trained.named_parameters()})
    save_file({key: value.contiguous() for key, value in golden.items()}, directory / "golden.safetensors")
    size = sum(file.stat().st_size for file in directory.iterdir())
    print(json.dumps(dict(case=name, parameters=sum(p.numel() for p in model.parameters()), bytes=size,
                          loss=result.loss.item())))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--case", choices=sorted(CASES), action="append", help="only these cases")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(CASES):
        if not arguments.case or name in arguments.case:
            make_case(name, arguments.output, 100 * seed)


if __name__ == "__main__":
    main()
