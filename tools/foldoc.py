#!/usr/bin/env python3
"""Turns Debian's dict-foldoc (the Free On-line Dictionary of Computing) into chat examples.

Each headword of the dictionary becomes one conversation, "What is X?" with its definition as the answer. The
split is by dictionary entry, never by headword, so that no definition stands on both sides; it depends on the
entry's text alone, so a rerun writes the same bytes.

    tools/foldoc.py --output out/foldoc/data        # writes train.jsonl and eval.jsonl
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import re
import sys

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}

# dictd's own entries about the database, and FOLDOC's pages about itself.
_ABOUT = re.compile(r"^(00-?database|00database|acknowledge?ments?$|missing definition$|free on-line dictionary)")


def decode_number(text):
    """Returns the value of a dictd base-64 number (most significant digit first)."""
    value = 0
    for digit in text:
        value = value * 64 + _VALUE[digit]
    return value


def read_entries(index_path, dict_path):
    """Yields the text of every distinct entry, in the order of the dictionary file."""
    with gzip.open(dict_path) as file:
        text = file.read()
    places = set()
    for number, line in enumerate(index_path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 3 or not all(digit in _VALUE for digit in fields[1] + fields[2]):
            raise ValueError(f"{index_path}:{number}: not 'headword TAB offset TAB size': {line!r}")
        offset, size = decode_number(fields[1]), decode_number(fields[2])
        if offset + size > len(text):
            raise ValueError(f"{index_path}:{number}: entry {offset}+{size} is beyond the end of {dict_path}")
        places.add((offset, size))
    for offset, size in sorted(places):
        yield text[offset : offset + size].decode("utf-8", errors="replace")


def split_entry(entry):
    """Returns (headwords, paragraphs): unindented lines before the first blank one, and the rest."""
    lines = entry.strip("\n").split("\n")
    headwords = []
    while lines and lines[0].strip() and not lines[0].startswith("   "):
        headwords.append(lines.pop(0).strip())
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    return headwords, [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip()]


def clean_paragraph(paragraph):
    """Strips FOLDOC's mark-up: cross-references, topic tags, sources, dates and emphasis."""
    paragraph = re.sub(r"\{\(?([a-z]+:[^{}\s]*|[\w.-]+\.html)\)?\}", "", paragraph)  # {(http://...)}
    paragraph = re.sub(r"\{([^{}]*?)\s*\([^(){}]*(?:://|\.html|/)[^{}]*\)\}", r"\1", paragraph)
    paragraph = paragraph.replace("{", "").replace("}", "")
    paragraph = re.sub(r"^((?:\d+\.\s+)?)<[A-Za-z][^<>@]*>\s*", r"\1", paragraph)  # <language, humour>
    paragraph = re.sub(r"<[^<>\s]*@[^<>\s]*>", "", paragraph)  # mail addresses
    paragraph = re.sub(r"\[[^\[\]]*\]\.?", "", paragraph)  # [Jargon File]
    paragraph = re.sub(r"\((?:\d{4}-\d\d-\d\d)\)", "", paragraph)  # (1994-11-01)
    paragraph = re.sub(r"__([^_]+)__", r"\1", paragraph)
    return re.sub(r"\s+([.,;:])", r"\1", " ".join(paragraph.split()))


def shorten(text, limit):
    """Cuts `text` after the last whole sentence within `limit` characters."""
    if len(text) <= limit:
        return text
    end = max(text.rfind(stop, 0, limit) for stop in (". ", "? ", "! "))
    return text[: end + 1] if end > 0 else ""


def examples_of(entry, max_characters):
    """Returns the conversations of one entry; none for cross-references and pages about the dictionary."""
    headwords, paragraphs = split_entry(entry)
    if not headwords or headwords[0].endswith(":") or _ABOUT.match(headwords[0].lower()):
        return []
    cleaned = [text for text in map(clean_paragraph, paragraphs) if len(text) > 3]
    cleaned = [text for text in cleaned if not re.match(r"(Home|Telephone|E-?mail|ftp|http|Usenet)\b", text)]
    answer = shorten(" ".join(cleaned), max_characters)
    if len(answer) < 20 or re.match(r"See\b", answer):
        return []
    return [
        {"messages": [{"role": "user", "content": f"What is {headword}?"}, {"role": "assistant", "content": answer}]}
        for headword in headwords
    ]


def is_held_out(entry, percent):
    """Decides by the hash of the entry's text, so that adding entries moves no other."""
    return int(hashlib.sha256(entry.encode()).hexdigest()[:8], 16) % 10000 < percent * 100


def convert(index_path, dict_path, output, held_out_percent, max_characters):
    """Writes OUTPUT/train.jsonl and OUTPUT/eval.jsonl; returns the number of examples of each."""
    splits = {"train": [], "eval": []}
    for entry in read_entries(index_path, dict_path):
        split = "eval" if is_held_out(entry, held_out_percent) else "train"
        splits[split].extend(examples_of(entry, max_characters))
    output.mkdir(parents=True, exist_ok=True)
    for split, examples in splits.items():
        lines = [json.dumps(example, ensure_ascii=False) + "\n" for example in examples]
        (output / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {split: len(examples) for split, examples in splits.items()}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=pathlib.Path, default=pathlib.Path("/usr/share/dictd/foldoc.index"))
    parser.add_argument("--dictionary", type=pathlib.Path, default=pathlib.Path("/usr/share/dictd/foldoc.dict.dz"))
    parser.add_argument("--output", type=pathlib.Path, required=True, help="directory of the two files")
    parser.add_argument("--held-out-percent", type=float, default=3.0)
    parser.add_argument("--max-characters", type=int, default=250, help="longest answer")
    arguments = parser.parse_args()
    for path in (arguments.index, arguments.dictionary):
        if not path.exists():
            sys.exit(f"foldoc.py: {path} not found; install Debian's package dict-foldoc")
    counts = convert(
        arguments.index, arguments.dictionary, arguments.output, arguments.held_out_percent, arguments.max_characters
    )
    print(f"{counts['train']} training and {counts['eval']} held-out examples in {arguments.output}")


if __name__ == "__main__":
    main()
