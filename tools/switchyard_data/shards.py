"""Token shards as docs/data_format.md describes them: written and checked."""

import json
import os

import numpy as np
import xxhash

MAGIC = b"SWYTOK01"
VERSION = 1
FORMAT = "switchyard-token-shards"
ALIGNMENT = 64
SHARD_BYTES = 1 << 30
ROW = np.dtype([("tokens", "<u4"), ("targets", "<u4"), ("first_document", "<u8")])


def _align(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def _hash_file(path):
    digest = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_split(directory, documents, sequence_length, about, progress=lambda fraction: None):
    """Writes shards and index.json.

    documents: (tokens int32 and marks uint8 of all documents back to back, lengths, sequence of each document,
    number of sequences). about: further keys of index.json. Returns the index.
    """
    tokens, marks, lengths, sequence_of, num_sequences = documents
    os.makedirs(directory)
    lengths = np.asarray(lengths, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else lengths
    order = np.argsort(sequence_of, kind="stable")
    first_of_sequence = np.searchsorted(sequence_of[order], np.arange(num_sequences + 1))
    row_bytes = 4 * sequence_length + 8 * (-(-sequence_length // 64)) + ROW.itemsize
    per_shard = max(1, SHARD_BYTES // row_bytes)
    shards = []
    for first in range(0, num_sequences, per_shard):
        last = min(num_sequences, first + per_shard)
        name = f"tokens-{len(shards):05d}.bin"
        boundaries = first_of_sequence[first : last + 1]
        shard = _write_shard(
            os.path.join(directory, name), tokens, marks, starts, lengths, order, boundaries, sequence_length
        )
        shards.append({"file": name, **shard})
        progress(last / num_sequences)
    index = {
        "format": FORMAT,
        "version": VERSION,
        "sequence_length": sequence_length,
        "sequences": int(num_sequences),
        "documents": len(lengths),
        "tokens": sum(shard["tokens"] for shard in shards),
        "targets": sum(shard["targets"] for shard in shards),
        "shards": shards,
        **about,
    }
    path = os.path.join(directory, "index.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(index, file, indent=1)
        file.write("\n")
    _fsync(path)
    _fsync(directory)
    return index


def _write_shard(path, tokens, marks, starts, lengths, order, boundaries, sequence_length):
    n = len(boundaries) - 1
    chosen = order[boundaries[0] : boundaries[-1]]
    words = -(-sequence_length // 64)
    rows_at = ALIGNMENT
    documents_at = rows_at + _align((n + 1) * ROW.itemsize)
    targets_at = documents_at + _align(4 * len(chosen))
    tokens_at = targets_at + _align(8 * n * words)
    end = tokens_at + 4 * n * sequence_length
    rows = np.zeros(n + 1, ROW)
    rows["first_document"] = boundaries - boundaries[0]
    document_start = np.zeros(len(chosen), "<u4")
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, end)  # a full disk is an error here, and SIGBUS once it is mapped
    out_tokens = np.memmap(path, "<i4", "r+", tokens_at, (n, sequence_length))
    out_bits = np.memmap(path, np.uint8, "r+", targets_at, (n, words * 8))
    line = np.zeros(words * 64, np.uint8)
    for i in range(n):
        at = 0
        line[:] = 0
        for k in range(boundaries[i] - boundaries[0], boundaries[i + 1] - boundaries[0]):
            start, length = starts[chosen[k]], lengths[chosen[k]]
            out_tokens[i, at : at + length] = tokens[start : start + length]
            line[at : at + length] = marks[start : start + length]
            document_start[k] = at
            at += length
        rows[i]["tokens"] = at
        rows[i]["targets"] = line.sum()
        out_bits[i] = np.packbits(line, bitorder="little")
    out_tokens.flush()
    out_bits.flush()
    header = MAGIC + np.array([VERSION, sequence_length], "<u4").tobytes()
    header += np.array([n, len(chosen)], "<u8").tobytes()
    with open(path, "r+b") as file:
        file.write(header.ljust(ALIGNMENT, b"\0"))
        file.write(rows.tobytes())
        file.seek(documents_at)
        file.write(document_start.tobytes())
        file.flush()
        os.fsync(file.fileno())
    return {
        "sequences": n,
        "tokens": int(rows["tokens"].sum()),
        "targets": int(rows["targets"].sum()),
        "bytes": end,
        "xxh3": _hash_file(path),
    }


def read_valid_index(directory, fingerprint):
    """The index of a complete, undamaged split with this fingerprint, or None."""
    try:
        with open(os.path.join(directory, "index.json"), encoding="utf-8") as file:
            index = json.load(file)
        if (index["format"], index["version"], index["fingerprint"]) != (FORMAT, VERSION, fingerprint):
            return None
        for shard in index["shards"]:
            path = os.path.join(directory, shard["file"])
            if os.path.getsize(path) != shard["bytes"] or _hash_file(path) != shard["xxh3"]:
                return None
        return index
    except (OSError, ValueError, KeyError, TypeError):
        return None
