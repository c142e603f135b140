#!/usr/bin/env python3
"""Compares the trainer with Transformers on a random model of any small Qwen3-MoE configuration.

Makes a model with random weights from a config.json, runs `switchyard-trainer check` and Transformers (eager, float32)
on the same random batch, and prints the largest relative difference ||a - b|| / ||b|| of each class of tensors.
Exits with 1 when a tolerance is exceeded: 1e-5 for logits and losses, 1e-4 for gradients; with --steps also 1e-4 for
the parameters after that many AdamW steps, which magnify the rounding of gradients near zero. A gradient or parameter
beyond its tolerance passes, marked "rounding", when it is at most twice as far from Transformers in float64 as Transformers
in float32 is: where the true gradient is zero, say, both are rounding and nothing else.

    tools/compare_with_transformers.py --config config.json --seed 1 --ranks 4 --expert-parallel 2 --steps 3
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from huggingface_hub.errors import StrictDataclassError  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: E402

TOLERANCE = {"output": 1e-5, "gradient": 1e-4, "parameter": 1e-4}
ROUNDING = 2  # times as far from float64 as Transformers in float32 is rounding still
MAX_PARAMETERS = 300_000_000

_CLASSES = [
    (r"embed_tokens", "embedding"),
    (r"lm_head", "lm_head"),
    (r"[qk]_norm", "qk norm"),
    (r"norm", "norm"),
    (r"self_attn\.[qkvo]_proj\.bias", "attention bias"),
    (r"self_attn\.", "attention"),
    (r"experts\..*down_proj", "experts down"),
    (r"experts\.", "experts gate and up"),
    (r"mlp\.gate\.", "router"),
    (r"mlp\.", "dense feed-forward"),
]


def class_of(name):
    """Returns the class under which a tensor's error is reported."""
    return next((label for pattern, label in _CLASSES if re.search(pattern, name)), "other")


def load_config(path):
    """Reads a config.json, or the one in a directory."""
    path = path / "config.json" if path.is_dir() else path
    values = json.loads(path.read_text())
    if values.get("model_type") != "qwen3_moe":
        raise ValueError(f"{path}: model_type is {values.get('model_type')!r}; only 'qwen3_moe' is compared here")
    try:
        config = Qwen3MoeConfig.from_dict(values)
    except StrictDataclassError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


def random_model(config, seed):
    """Returns a float32 model whose every weight matters: unlike fresh ones, norms are not 1 and biases not 0."""
    torch.manual_seed(seed)
    model = Qwen3MoeForCausalLM(config).float()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"the model has {parameters} parameters; more than {MAX_PARAMETERS} take too long here")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    return model.eval()


def split_experts(tensors):
    """Renames tensors from Transformers' memory layout to one tensor an expert, as in published checkpoints."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            for expert, matrix in enumerate(tensor):
                gate, up = matrix.chunk(2)
                stem = f"{name.removesuffix('gate_up_proj')}{expert}"
                result[f"{stem}.gate_proj.weight"] = gate
                result[f"{stem}.up_proj.weight"] = up
        elif name.endswith("experts.down_proj"):
            for expert, matrix in enumerate(tensor):
                result[f"{name.removesuffix('down_proj')}{expert}.down_proj.weight"] = matrix
        else:
            result[name] = tensor
    return {name: tensor.detach().contiguous() for name, tensor in result.items()}


def save_model(model, directory, layout):
    """Writes the checkpoint: one tensor an expert ('split'), or Transformers' own fused tensors ('fused')."""
    tensors = dict(model.named_parameters())  # tied weights once
    tensors = split_experts(tensors) if layout == "split" else {n: t.detach() for n, t in tensors.items()}
    model.config.save_pretrained(directory)
    save_file(tensors, str(directory / "model.safetensors"), metadata={"format": "pt"})


def random_batch(config, seed, rows, length, packed):
    """Returns input_ids, labels and position_ids [rows, length]: some targets masked, packed documents if asked."""
    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(config.vocab_size, (rows, length), generator=generator)
    labels = torch.where(torch.rand((rows, length), generator=generator) < 0.25, -100, ids)
    positions = torch.arange(length).repeat(rows, 1)
    if packed:
        for row in range(rows):
            for start in sorted((1 + torch.randperm(length - 1, generator=generator)[:2]).tolist()):
                positions[row, start:] = torch.arange(length - start)
                labels[row, start] = -100  # a document's first token has nothing to be predicted from
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def transformers_results(model, batch, steps, learning_rate, layout):
    """Returns what `check` writes, computed by Transformers, and the smallest margin of a routing decision."""
    config = model.config
    rename = split_experts if layout == "split" else lambda tensors: {n: t.detach() for n, t in tensors.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    results, margin = {}, float("inf")
    for step in range(max(steps, 1)):
        output = model(  # without a mask it takes restarting positions for documents
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            labels=batch["labels"],
            output_router_logits=True,
            use_cache=False,
        )
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            results["logits"] = output.logits.detach()
            results["loss"] = output.loss.detach()
            results["aux_loss"] = torch.as_tensor(output.aux_loss).detach().float()
            gradients = {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in model.named_parameters()}
            results |= {f"grad.{name}": tensor.clone() for name, tensor in rename(gradients).items()}
            for logits in output.router_logits or ():
                if config.num_experts_per_tok < logits.shape[-1]:
                    top = logits.detach().topk(config.num_experts_per_tok + 1).values
                    margin = min(margin, (top[:, -2] - top[:, -1]).min().item())
        if steps:
            optimizer.step()
    if steps:
        results |= {f"param.{name}": tensor for name, tensor in rename(dict(model.named_parameters())).items()}
    return results, margin


@contextlib.contextmanager
def _float32_means_float64():
    """Transformers takes some steps in float32 whatever the model's type: norms, softmax, angles, the loss."""
    with (
        mock.patch.object(torch, "float32", torch.float64),
        mock.patch.object(torch, "float", torch.float64),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def float64_results(model, batch, steps, learning_rate, layout):
    """Returns what Transformers gives for `model`, not yet trained, with every step in float64."""
    with _float32_means_float64():
        return transformers_results(model.double(), batch, steps, learning_rate, layout)[0]


def trainer_results(arguments, model_dir, batch_file, output_file):
    """Runs `switchyard-trainer check` and returns the tensors that it wrote."""
    command = [str(arguments.trainer), "check", "--model", str(model_dir), "--batch", str(batch_file)]
    command += ["--out", str(output_file), "--ranks", str(arguments.ranks)]
    command += ["--expert-parallel", str(arguments.expert_parallel), "--device", "cpu", "--dtype", "float32"]
    if arguments.steps:
        command += ["--steps", str(arguments.steps), "--learning-rate", str(arguments.learning_rate)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nexited with {finished.returncode}:\n{finished.stderr[-4000:]}")
    return load_file(str(output_file))


def relative_error(actual, expected):
    """Returns ||a - b|| / ||b||; where b is zero, a must be zero too."""
    norm = expected.double().norm().item()
    difference = (actual.double() - expected.double()).norm().item()
    if difference != difference:
        return float("inf")
    return difference / norm if norm else (0.0 if difference == 0 else float("inf"))


def kind_of(name):
    """Returns 'output', 'gradient' or 'parameter'."""
    return {"grad": "gradient", "param": "parameter"}.get(name.partition(".")[0], "output")


def within_tolerance(name, actual, expected):
    """Whether a tensor of the same shape agrees."""
    return relative_error(actual.reshape(expected.shape), expected) <= TOLERANCE[kind_of(name)]


def beyond_tolerance(actual, expected):
    """Returns the names of gradients and parameters that do not agree."""
    names = [name for name in expected.keys() & actual.keys() if kind_of(name) != "output"]
    names = [name for name in names if actual[name].shape == expected[name].shape]
    return sorted(name for name in names if not within_tolerance(name, actual[name], expected[name]))


def rounding_of(actual, expected, truth):
    """Returns {name: (our distance, theirs)} from `truth` in float64 of the tensors whose difference is rounding."""
    outputs = [name for name in expected if kind_of(name) == "output"]
    if not all(within_tolerance(name, expected[name], truth[name]) for name in outputs):
        return {}  # another routing decision in float64: it is no yardstick
    result = {}
    for name in beyond_tolerance(actual, expected):
        ours, theirs = ((tensors[name].double() - truth[name]).norm().item() for tensors in (actual, expected))
        if ours <= ROUNDING * theirs < math.inf:
            result[name] = (ours, theirs)
    return result


def compare(actual, expected, rounding=()):
    """Returns rows (kind, class, tensors, worst error, its tensor), of the tensors in `rounding` apart, and problems."""
    problems = [f"{name}: not in the trainer's output" for name in sorted(expected.keys() - actual.keys())]
    problems += [f"{name}: Transformers has no such tensor" for name in sorted(actual.keys() - expected.keys())]
    rows = {}
    for name in sorted(expected.keys() & actual.keys()):
        wanted, got = expected[name], actual[name]
        if wanted.numel() == 1:
            got, wanted = got.reshape(()), wanted.reshape(())
        if got.shape != wanted.shape:
            problems.append(f"{name}: shape {list(got.shape)}, expected {list(wanted.shape)}")
            continue
        kind = kind_of(name)
        key = (kind, name if kind == "output" else class_of(name.partition(".")[2]), name in rounding)
        error = relative_error(got, wanted)
        count, worst, where = rows.get(key, (0, -1.0, ""))
        rows[key] = (count + 1, *max((worst, where), (error, name)))
    return [(kind, label, *value) for (kind, label, _), value in rows.items()], problems


def report(rows, problems, margin, rounding=()):
    """Prints the table and returns whether everything is within tolerance, or beyond it by rounding alone."""
    good = not problems
    print(f"{'':10}{'class':22}{'tensors':>8}{'worst':>11}{'allowed':>10}  tensor")
    for kind, label, count, error, where in rows:
        verdict = ""
        if where in rounding:
            verdict = "  rounding: {:.1e} from float64, Transformers' float32 {:.1e}".format(*rounding[where])
        elif error > TOLERANCE[kind]:
            verdict = "  TOO LARGE"
            good = False
        print(f"{kind:10}{label:22}{count:8}{error:11.2e}{TOLERANCE[kind]:10.0e}  {where}{verdict}")
    for problem in problems:
        print(problem)
    if not good and margin < 1e-5:
        print(f"note: the closest routing decision has a margin of {margin:.1e}; rounding may take it either way: try another --seed")
    return good


def find_trainer():
    """Returns the built trainer nearest to this file, or None."""
    root = pathlib.Path(__file__).resolve().parent.parent
    found = [path for path in root.glob("build*/bin/switchyard-trainer") if os.access(path, os.X_OK)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def parse_arguments():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, required=True, help="config.json, or a directory with one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--expert-parallel", type=int, default=1)
    parser.add_argument("--rows", type=int, default=0, help="sequences of the batch, a multiple of --ranks; default 4 or more")
    parser.add_argument("--length", type=int, default=24, help="tokens of a sequence")
    parser.add_argument("--packed", action="store_true", help="three documents in each sequence")
    parser.add_argument("--layout", choices=("split", "fused"), default="split", help="layout of the checkpoint")
    parser.add_argument("--steps", type=int, default=0, help="also compare parameters after so many AdamW steps")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--trainer", type=pathlib.Path, default=find_trainer(), help="switchyard-trainer")
    arguments = parser.parse_args()
    if arguments.trainer is None:
        parser.error("no build*/bin/switchyard-trainer found: build it or give --trainer")
    arguments.rows = arguments.rows or arguments.ranks * -(-4 // arguments.ranks)
    if arguments.rows % arguments.ranks:
        parser.error(f"--rows ({arguments.rows}) must be a multiple of --ranks ({arguments.ranks})")
    return arguments


def main():
    """Compares once; the exit status says whether all is within tolerance."""
    arguments = parse_arguments()
    try:
        config = load_config(arguments.config)
        model = random_model(config, arguments.seed)
        batch = random_batch(config, arguments.seed, arguments.rows, arguments.length, arguments.packed)
        with tempfile.TemporaryDirectory(prefix="switchyard-compare-") as scratch:
            scratch = pathlib.Path(scratch)
            save_model(model, scratch / "model", arguments.layout)
            save_file(batch, str(scratch / "batch.safetensors"))
            actual = trainer_results(arguments, scratch / "model", scratch / "batch.safetensors", scratch / "out.safetensors")
        settings = (batch, arguments.steps, arguments.learning_rate, arguments.layout)
        expected, margin = transformers_results(model, *settings)
        rounding = {}
        if beyond_tolerance(actual, expected):
            rounding = rounding_of(actual, expected, float64_results(random_model(config, arguments.seed), *settings))
    except (OSError, ValueError, RuntimeError, subprocess.TimeoutExpired) as error:
        sys.exit(f"compare_with_transformers.py: {error}")
    sys.exit(0 if report(*compare(actual, expected, rounding), margin, rounding) else 1)


if __name__ == "__main__":
    main()
