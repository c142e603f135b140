#!/usr/bin/env python3
"""Whether the trainer's bfloat16 is as near to float32 as Transformers' bfloat16 is.

Makes random models of a small Qwen3-MoE configuration with weights that bfloat16 holds exactly, and computes logits and all
gradients of one batch three times: Transformers in float32 (the truth), Transformers in bfloat16 (sdpa, grouped GEMM), and
`switchyard-trainer check --dtype bfloat16`. Errors are ||a - b|| / ||b|| of each tensor against the truth. The rule
(docs/numerics.md): in each class of tensors the trainer's median is at most 1.05 times that of Transformers. Exits with 1 when
it is broken. Rounding sends some tokens to other experts, in either program, and that outweighs all else: it takes many seeds until
medians settle. With --all-experts every token goes to every expert; two seeds are enough, and no single tensor may have more
than 1.5 times the error that it has in Transformers.

    tools/compare_bfloat16.py --config config.json --all-experts
"""

import argparse
import copy
import pathlib
import statistics
import subprocess
import sys
import tempfile

import torch
from compare_with_transformers import (
    class_of,
    find_trainer,
    load_config,
    random_batch,
    random_model,
    relative_error,
    save_model,
    transformers_results,
)
from safetensors.torch import load_file, save_file

MEDIAN_LIMIT = 1.05
TENSOR_LIMIT = 1.5


def in_bfloat16(model):
    """Returns the same model in bfloat16, as Transformers trains fastest."""
    model = copy.deepcopy(model).bfloat16()
    model.set_attn_implementation("sdpa")
    model.set_experts_implementation("grouped_mm")
    return model


def errors_of(actual, truth):
    """Returns {tensor: error} of logits and gradients."""
    names = [name for name in truth if name == "logits" or name.startswith("grad.")]
    return {name: relative_error(actual[name].reshape(truth[name].shape), truth[name]) for name in names}


def compare_seed(options, config, seed):
    """Returns the errors of the trainer and of Transformers for one random model."""
    model = random_model(config, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    batch = random_batch(config, seed, options.rows, options.length, packed=True)
    with tempfile.TemporaryDirectory(prefix="switchyard-bfloat16-") as name:
        scratch = pathlib.Path(name)
        save_model(model, scratch / "model", "split")
        save_file(batch, str(scratch / "batch"))
        command = [str(options.trainer), "check", "--model", str(scratch / "model"), "--batch", str(scratch / "batch")]
        command += ["--out", str(scratch / "out"), "--device", "cpu", "--dtype", "bfloat16"]
        command += ["--ranks", str(options.ranks), "--expert-parallel", str(options.ranks)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if finished.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nexited with {finished.returncode}:\n{finished.stderr[-4000:]}")
        trainer = load_file(str(scratch / "out"))
    truth, _ = transformers_results(model, batch, 0, 0.0, "split")
    others, _ = transformers_results(in_bfloat16(model), batch, 0, 0.0, "split")
    return errors_of(trainer, truth), errors_of(others, truth)


def report(pairs, each_tensor):
    """Prints pairs [(tensor, trainer's error, Transformers' error)] by class; whether the rule holds."""
    classes = {}
    for name, *errors in pairs:
        classes.setdefault(name if name == "logits" else class_of(name), []).append((*errors, name))
    print(f"{'class':22}{'tensors':>8}{'trainer':>10}{'others':>10}{'ratio':>7}{'worst':>7}  tensor")
    good = True
    for label, rows in classes.items():
        own, other = (statistics.median(row[i] for row in rows) for i in (0, 1))
        ratio = own / other if other else (1.0 if own == 0 else float("inf"))
        worst, where = max((row[0] / row[1] if row[1] else 1.0, row[2]) for row in rows)
        broken = ratio > MEDIAN_LIMIT or (each_tensor and worst > TENSOR_LIMIT)
        good = good and not broken
        mark = "  TOO LARGE" if broken else ""
        print(f"{label:22}{len(rows):8}{own:10.2e}{other:10.2e}{ratio:7.2f}{worst:7.2f}  {where}{mark}")
    return good


def main():
    """Compares all seeds together; the exit status says whether the rule holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, required=True, help="config.json, or a directory with one")
    parser.add_argument("--seeds", type=int, default=8, help="random models")
    parser.add_argument("--rows", type=int, default=4, help="sequences of the batch")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--ranks", type=int, default=1, help="of the trainer, all in one expert-parallel group")
    parser.add_argument("--all-experts", action="store_true", help="num_experts_per_tok = num_experts: no routing decisions")
    parser.add_argument("--trainer", type=pathlib.Path, default=find_trainer(), help="switchyard-trainer")
    options = parser.parse_args()
    try:
        config = load_config(options.config)
        if options.all_experts:
            config.num_experts_per_tok = config.num_experts
        pairs = []
        for seed in range(options.seeds):
            trainer, others = compare_seed(options, config, seed)
            pairs += [(name, error, others[name]) for name, error in trainer.items()]
    except (OSError, ValueError, RuntimeError, subprocess.TimeoutExpired) as error:
        sys.exit(f"compare_bfloat16.py: {error}")
    sys.exit(0 if report(pairs, options.all_experts) else 1)


if __name__ == "__main__":
    main()
