#!/usr/bin/env python3
"""Turns documents into packed token shards that the trainer maps (docs/data_format.md).

Input: .jsonl, .jsonl.gz, .jsonl.zst or .parquet; each example is {"messages": [...]}, {"prompt": ..., "completion":
...} or {"text": ...}. Output: OUTPUT_DIR/<fingerprint>/train and /eval, which appear at once when they are complete; shards
of the same data, tokenizer, template and options are reused, from there or from the cache of this machine (--cache-dir).

Exit codes: 0 done, 65 data or options are to blame, 74 reading or writing failed. With --progress-json the last line
on standard output is {"result": {...}} or {"error": {"message": ..., "user_error": ...}}.
"""

import argparse
import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from switchyard_data.cache import DataCache  # noqa: E402
from switchyard_data.documents import Documents, check_path  # noqa: E402
from switchyard_data.errors import UserError  # noqa: E402
from switchyard_data.progress import Progress, emit  # noqa: E402

EX_DATAERR = 65
EX_IOERR = 74
FORMAT_VERSION = 3  # of reading, tokenisation and packing: a change of any must not reuse older shards
TOKENIZER_FILES = ("token", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")
STALE_SECONDS = 3600


def parse_arguments(arguments):
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model directory: tokenizer, chat template, config.json")
    parser.add_argument("--train", required=True, help="training examples")
    parser.add_argument("--eval", default="", help="held-out examples")
    parser.add_argument("--sequence-length", type=int, required=True, help="tokens of a packed sequence")
    parser.add_argument("--output-dir", required=True, help="where prepared data is kept")
    parser.add_argument(
        "--train-on-all-tokens", action="store_true", help="train on every token, not on assistant (completion) tokens only"
    )
    parser.add_argument("--max-bad-lines", type=int, default=0, help="unreadable lines allowed in a file (default 0)")
    parser.add_argument("--disable-packing", action="store_true", help="one document a sequence")
    parser.add_argument("--cache-dir", default="", help="prepared data of earlier jobs on this machine, by fingerprint")
    parser.add_argument("--cache-bytes", type=int, default=1 << 35, help="what the cache may hold (default 32 GiB)")
    parser.add_argument("--progress-json", action="store_true", help="progress and result as JSON lines")
    return parser.parse_args(arguments)


def read_model_config(model):
    """The model's config.json."""
    path = os.path.join(model, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError as error:
        raise UserError(f"model directory {model} has no config.json") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return config if isinstance(config, dict) else {}


def check_options(options, config):
    """UserError naming the option, its value and the limit."""
    if options.sequence_length < 2:
        raise UserError(f"sequence_length ({options.sequence_length}) must be at least 2")
    limit = config.get("max_position_embeddings")
    if isinstance(limit, int) and options.sequence_length > limit:
        raise UserError(
            f"sequence_length ({options.sequence_length}) is above the model's max_position_embeddings ({limit})"
        )
    if options.max_bad_lines < 0:
        raise UserError(f"max_bad_lines ({options.max_bad_lines}) must not be negative")
    for path in filter(None, (options.train, options.eval)):
        check_path(path)


def load_tokenizer(model):
    """The tokenizer of a local model directory, as Transformers loads it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True)
    except Exception as error:  # the library raises whatever its readers raise
        raise UserError(f"the tokenizer of {model} cannot be loaded: {error}") from error


def fingerprint_of(options):
    """32 hexadecimal digits of everything that the result depends on."""
    digest = hashlib.blake2b(digest_size=16)

    def add_file(label, path):
        digest.update(f"\0{label}\0{os.path.getsize(path)}\0".encode())
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)

    settings = [FORMAT_VERSION, options.sequence_length, options.train_on_all_tokens, options.disable_packing]
    # Importing them would take longer than all the rest when the result exists.
    versions = [importlib.metadata.version(library) for library in ("transformers", "tokenizers")]
    digest.update(json.dumps([*settings, *versions]).encode())
    for name in sorted(os.listdir(options.model)):
        path = os.path.join(options.model, name)
        if name.startswith(TOKENIZER_FILES) and os.path.isfile(path):
            add_file(name, path)
    # The kind of a file is part of what it says.
    for split, path in (("train", options.train), ("eval", options.eval)):
        if path:
            add_file(split + os.path.splitext(path)[1], path)
    return digest.hexdigest()


def prepare_split(path, stage, split, tokenizer, options, vocab_size, fingerprint, steps):
    """Tokenizes, packs and writes one file to stage/split; returns the index."""
    from switchyard_data import encode, packing, render, shards

    tokenizing, writing = steps
    spool = encode.Spool(stage)
    try:
        renderer = render.Renderer(tokenizer, options.train_on_all_tokens)
        encoder = encode.Encoder(tokenizer, renderer, options.sequence_length, options.max_bad_lines)
        report = encoder.encode(Documents(path), spool, tokenizing())
        if vocab_size is not None and spool.max_token_id >= vocab_size:
            raise UserError(
                f"{path}: the tokenizer of {options.model} gives token id {spool.max_token_id}, its config.json has vocab_size "
                f"{vocab_size}: tokenizer and model do not belong together"
            )
        tokens, marks = spool.finish()
        sequence_of, count = packing.pack(spool.lengths, options.sequence_length, not options.disable_packing)
        about = {
            "vocab_size": len(tokenizer),
            "max_token_id": spool.max_token_id,
            "fingerprint": fingerprint,
            "report": report.as_json(),
        }
        return shards.write_split(
            os.path.join(stage, split),
            (tokens, marks, spool.lengths, sequence_of, count),
            options.sequence_length,
            about,
            writing(),
        )
    finally:
        spool.remove()


def read_cached(directory, splits, fingerprint):
    """Indices of all splits when every one is there and undamaged, else None."""
    from switchyard_data import shards

    found = {split: shards.read_valid_index(os.path.join(directory, split), fingerprint) for split in splits}
    return found if all(found.values()) else None


def check_cached_bad_lines(indices, inputs, limit):
    """UserError as from preparing anew: the limit is not part of the fingerprint, data is the same under any that it meets."""
    from switchyard_data import encode

    for split, path in inputs.items():
        report = indices[split]["report"]
        encode.check_bad_lines(path, report["bad_lines"], report["listed"]["bad"], limit)


def remove_stale_stages(output_dir, fingerprint):
    """What a killed run of the same preparation left behind."""
    for name in os.listdir(output_dir):
        path = os.path.join(output_dir, name)
        if name.startswith(f".{fingerprint}.") and time.time() - os.stat(path).st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def publish(stage, directory, splits, fingerprint):
    """One rename; another process may have been faster with the same result."""
    try:
        os.rename(stage, directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if read_cached(directory, splits, fingerprint) is not None:
            shutil.rmtree(stage)
            return
        doomed = f"{stage}.damaged"
        os.rename(directory, doomed)
        os.rename(stage, directory)
        shutil.rmtree(doomed, ignore_errors=True)
    fd = os.open(os.path.dirname(directory), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def prepare(options, progress):
    """Returns (index by split, the result that callers see)."""
    config = read_model_config(options.model)
    check_options(options, config)
    inputs = {"train": options.train, **({"eval": options.eval} if options.eval else {})}
    fingerprint = fingerprint_of(options)
    output_dir = os.path.abspath(options.output_dir)
    directory = os.path.join(output_dir, fingerprint)
    os.makedirs(output_dir, exist_ok=True)
    cache = DataCache(options.cache_dir, options.cache_bytes) if options.cache_dir else None
    with cache.locked(fingerprint) if cache else contextlib.nullcontext():
        indices = read_cached(directory, inputs, fingerprint)
        if indices is None and cache:
            indices = take_cached(cache, directory, inputs, fingerprint, options.max_bad_lines)
        elif indices:
            check_cached_bad_lines(indices, inputs, options.max_bad_lines)
        cached = indices is not None
        if not cached:
            indices = prepare_anew(options, config, inputs, directory, fingerprint, progress)
        if cache:
            cache.put(fingerprint, directory)
    train, held_out = indices["train"], indices.get("eval")
    return indices, {
        "train_dir": os.path.join(directory, "train"),
        "eval_dir": os.path.join(directory, "eval") if held_out else "",
        "train_sequences": train["sequences"],
        "train_targets": train["targets"],
        "eval_sequences": held_out["sequences"] if held_out else 0,
        "cached": cached,
    }


def stage_of(directory):
    """Where this process builds what becomes `directory`."""
    output_dir, fingerprint = os.path.split(directory)
    return os.path.join(output_dir, f".{fingerprint}.{os.getpid()}")


def take_cached(cache, directory, inputs, fingerprint, max_bad_lines):
    """Publishes the cache's entry as `directory`; its indices, or None when there is none that is undamaged."""
    stage = stage_of(directory)
    try:
        if not cache.take(fingerprint, stage):
            return None
        indices = read_cached(stage, inputs, fingerprint)
        if indices is None:
            cache.remove(fingerprint)
            return None
        check_cached_bad_lines(indices, inputs, max_bad_lines)
        publish(stage, directory, inputs, fingerprint)
        return indices
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def prepare_anew(options, config, inputs, directory, fingerprint, progress):
    """Tokenizes and packs all splits, and publishes them as `directory`; the indices."""
    part = 1.0 / len(inputs)
    remove_stale_stages(os.path.dirname(directory), fingerprint)
    tokenizer = load_tokenizer(options.model)
    stage = stage_of(directory)
    indices = {}
    try:
        os.makedirs(stage)
        for split, path in inputs.items():
            steps = (
                lambda s=split: progress.part(f"tokenizing {s}", 0.8 * part),
                lambda s=split: progress.part(f"writing {s}", 0.2 * part),
            )
            indices[split] = prepare_split(
                path, stage, split, tokenizer, options, config.get("vocab_size"), fingerprint, steps
            )
        publish(stage, directory, inputs, fingerprint)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return indices


def describe(indices, result):
    """For a person, on standard error."""
    for split, index in indices.items():
        report = index["report"]
        filled = index["tokens"] / max(1, index["sequences"] * index["sequence_length"])
        print(
            f"{split}: {report['examples']} examples, {report['kept']} kept, {report['dropped']} dropped, "
            f"{report['bad_lines']} bad lines, {report['truncated']} truncated; {index['sequences']} sequences of "
            f"{index['sequence_length']}, {index['tokens']} tokens ({filled:.1%} full), {index['targets']} targets",
            file=sys.stderr,
        )
        for kind, entries in report["listed"].items():
            for entry in entries[:10]:
                print(f"  {kind}: line {entry['line']}: {entry['reason']}", file=sys.stderr)
            if len(entries) > 10:
                print(f"  {kind}: ... (index.json lists the first 100)", file=sys.stderr)
    print(f"{'reused' if result['cached'] else 'wrote'} {os.path.dirname(result['train_dir'])}", file=sys.stderr)


def main(arguments=None):
    """Exit code of the program."""
    options = parse_arguments(arguments)
    progress = Progress(options.progress_json)
    try:
        indices, result = prepare(options, progress)
    except UserError as error:
        return fail(options, str(error), True, EX_DATAERR)
    except OSError as error:
        return fail(options, os_message(error, options.output_dir), False, EX_IOERR)
    finally:
        progress.close()
    describe(indices, result)
    if options.progress_json:
        emit({"result": result})
    else:
        print(json.dumps(result, indent=1))
    return 0


def os_message(error, output_dir):
    """Path, cause and, on a full disk, the bytes that are free."""
    message = f"{error.filename or output_dir}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(os.path.dirname(os.path.abspath(output_dir)) or "/").free
        message += f" ({free} bytes free at {output_dir}); free space there or choose another output"
    return message


def fail(options, message, user_error, code):
    """Says why, to a person and to a program; returns `code`."""
    if options.progress_json:
        emit({"error": {"message": message, "user_error": user_error}})
    print(f"prepare_data: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
