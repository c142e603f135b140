"""What prepare_data writes, read by the description in docs/data_format.md, and the examples that it is given."""

import json
import os

import numpy as np

from switchyard_data import shards


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, *calls):
    more = {"tool_calls": [{"type": "function", "function": {"name": name, "arguments": {}}} for name in calls]} if calls else {}
    return {"role": "assistant", "content": content, **more}


END = "<|im_end|>\n"


def write_jsonl(path, examples):
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in examples))
    return path


class Split:
    """A split: its index, and sequences as (tokens, marks, where documents start)."""

    def __init__(self, directory):
        self.index = json.loads(open(os.path.join(directory, "index.json")).read())
        self.sequences = []
        length = self.index["sequence_length"]
        words = -(-length // 64)
        for shard in self.index["shards"]:
            data = open(os.path.join(directory, shard["file"]), "rb").read()
            assert data[:8] == b"SWYTOK01"
            version, s = np.frombuffer(data, "<u4", 2, 8)
            n, d = (int(x) for x in np.frombuffer(data, "<u8", 2, 16))
            assert (version, s, n) == (1, length, shard["sequences"])
            at = 64
            rows = np.frombuffer(data, shards.ROW, n + 1, at)
            at += -(-(n + 1) * 16 // 64) * 64
            documents = np.frombuffer(data, "<u4", d, at)
            at += -(-4 * d // 64) * 64
            bits = np.frombuffer(data, "<u8", n * words, at).reshape(n, words)
            at += -(-8 * n * words // 64) * 64
            tokens = np.frombuffer(data, "<i4", n * s, at).reshape(n, s)
            assert at + 4 * n * s == len(data) == shard["bytes"]
            for i in range(n):
                count = int(rows[i]["tokens"])
                marks = [bool(int(bits[i][t // 64]) >> (t % 64) & 1) for t in range(length)]
                assert sum(marks) == rows[i]["targets"] and not any(marks[count:]) and not tokens[i][count:].any()
                starts = documents[rows[i]["first_document"] : rows[i + 1]["first_document"]].tolist()
                self.sequences.append((tokens[i][:count].tolist(), marks[:count], starts))

    def documents(self):
        for tokens, marks, starts in self.sequences:
            for begin, end in zip(starts, starts[1:] + [len(tokens)]):
                yield tokens[begin:end], marks[begin:end]


def texts(model_dir, directory):
    """[(whole document, what is trained on)] as text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model_dir))
    return [
        (tokenizer.decode(ids), tokenizer.decode([t for t, m in zip(ids, marks) if m]))
        for ids, marks in Split(directory).documents()
    ]
