"""Examples to tokens and target marks, in batches, spooled to disk: memory does not grow with the data."""

import os
from array import array
from collections import Counter

import numpy as np

from .errors import ExampleError, UserError

BATCH = 256
LISTED = 100  # entries of each kind that a report lists


class Report:
    """What became of the examples of one file."""

    def __init__(self, path):
        self.path = path
        self.examples = 0
        self.kept = 0
        self.bad_lines = 0
        self.truncated = 0
        self.truncated_tokens = 0
        self.reasons = Counter()
        self.listed = {"bad": [], "dropped": [], "truncated": []}

    def note(self, kind, number, reason):
        if len(self.listed[kind]) < LISTED:
            self.listed[kind].append({"line": number, "reason": reason})

    def drop(self, number, error):
        self.reasons[str(error)] += 1
        self.bad_lines += error.bad
        self.note("bad" if error.bad else "dropped", number, str(error))

    def as_json(self):
        return {
            "examples": self.examples,
            "kept": self.kept,
            "bad_lines": self.bad_lines,
            "dropped": sum(self.reasons.values()) - self.bad_lines,
            "truncated": self.truncated,
            "truncated_tokens": self.truncated_tokens,
            "reasons": dict(sorted(self.reasons.items())[:LISTED]),
            "listed": self.listed,
        }


def check_bad_lines(path, bad_lines, listed, limit):
    """UserError naming the first line above the limit (the last one listed, when that is earlier)."""
    if bad_lines > limit:
        first = listed[min(limit, len(listed) - 1)]
        raise UserError(
            f"{path}:{first['line']}: {first['reason']} ({bad_lines} bad lines, {limit} allowed; mend the file or raise "
            "data.max_bad_lines)"
        )


class Spool:
    """Tokens and target marks of all documents in two files of `directory`, and their lengths."""

    def __init__(self, directory):
        self.lengths = array("I")
        self.max_token_id = 0
        self._paths = [os.path.join(directory, name) for name in ("spool.tokens", "spool.marks")]
        self._files = [open(path, "wb") for path in self._paths]

    def add(self, tokens, marks):
        self.lengths.append(len(tokens))
        self.max_token_id = max(self.max_token_id, int(tokens.max()))
        self._files[0].write(tokens.astype("<i4").tobytes())
        self._files[1].write(marks.astype(np.uint8).tobytes())

    def finish(self):
        """Maps (tokens int32, marks uint8) of all documents back to back."""
        for file in self._files:
            file.close()
        return (np.memmap(self._paths[0], "<i4", "r"), np.memmap(self._paths[1], np.uint8, "r"))

    def remove(self):
        for file, path in zip(self._files, self._paths):
            file.close()
            if os.path.exists(path):
                os.remove(path)


class Encoder:
    """Turns examples into tokens and target marks."""
    def __init__(self, tokenizer, renderer, sequence_length, max_bad_lines):
        self.tokenizer = tokenizer
        self.render = renderer
        self.sequence_length = sequence_length
        self.max_bad_lines = max_bad_lines
        if not tokenizer.is_fast:
            raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no tokenizer.json; convert it first")

    def encode(self, documents, spool, progress):
        """Spools every document; returns the Report. UserError when too many lines are bad or nothing is left."""
        report = Report(documents.path)
        batch = []
        for number, example in documents:
            report.examples += 1
            try:
                if isinstance(example, ExampleError):
                    raise example
                rendered = self._rendered(example)
                batch.append((number, rendered))
            except ExampleError as error:
                report.drop(number, error)
                check_bad_lines(report.path, report.bad_lines, report.listed["bad"], self.max_bad_lines)
            except UserError as error:
                raise UserError(f"{documents.path}:{number}: {error}") from error
            if len(batch) >= BATCH:
                self._encode_batch(batch, spool, report)
                batch.clear()
                progress(documents.fraction)
        self._encode_batch(batch, spool, report)
        self._check_not_empty(report)
        return report

    def _rendered(self, example):
        rendered = self.render(example)
        if not any(segment.text for segment in rendered.segments):
            raise ExampleError("is empty", bad=False)
        for segment in rendered.segments:
            try:
                segment.text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ExampleError("has half of a surrogate pair, which is no character") from error
        return rendered

    def _encode_batch(self, batch, spool, report):
        encoded = {}  # by id of a segment
        for special in (False, True):
            chosen = [s for _, rendered in batch for s in rendered.segments if s.special == special]
            if not chosen:
                continue
            result = self.tokenizer(
                [segment.text for segment in chosen],
                add_special_tokens=special,
                return_offsets_mapping=True,
                return_special_tokens_mask=special,
                return_attention_mask=False,
            )
            for k, segment in enumerate(chosen):
                added = result["special_tokens_mask"][k] if special else None
                encoded[id(segment)] = self._segment(segment, result["input_ids"][k], result["offset_mapping"][k], added)
        for number, rendered in batch:
            parts = [encoded[id(segment)] for segment in rendered.segments]
            self._keep(number, *self._document(parts, rendered.end_of_text), spool, report)

    def _segment(self, segment, ids, offsets, added):
        tokens = np.asarray(ids, dtype=np.int64)
        begin = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)[:, 0]
        marks = np.zeros(len(tokens), dtype=bool)
        for first, last in segment.spans:
            # By where a token begins: one that also covers text before the span belongs to what was given.
            marks |= (begin >= first) & (begin < last)
        if added is not None:
            # A token that the tokenizer puts behind every text is not wanted between prompt and completion.
            if len(tokens) and added[-1] and tokens[-1] == self.tokenizer.eos_token_id:
                tokens, marks, added = tokens[:-1], marks[:-1], added[:-1]
            marks &= ~np.asarray(added, dtype=bool)
        return tokens, marks

    def _document(self, parts, end_of_text):
        tokens = np.concatenate([tokens for tokens, _ in parts])
        marks = np.concatenate([marks for _, marks in parts])
        if end_of_text and self.tokenizer.eos_token_id is not None:
            tokens = np.append(tokens, self.tokenizer.eos_token_id)
            marks = np.append(marks, True)
        if len(marks):
            marks[0] = False  # nothing predicts a document's first token
        return tokens, marks

    def _keep(self, number, tokens, marks, spool, report):
        cut = len(tokens) - self.sequence_length
        if cut > 0:
            tokens, marks = tokens[: self.sequence_length], marks[: self.sequence_length]
        if not marks.any():
            where = f" within the first {self.sequence_length} tokens" if cut > 0 else ""
            report.drop(number, ExampleError(f"no token to train on{where}", bad=False))
            return
        if cut > 0:
            report.truncated += 1
            report.truncated_tokens += cut
            report.note("truncated", number, f"{len(tokens) + cut} tokens, {cut} cut")
        report.kept += 1
        spool.add(tokens, marks)

    def _check_not_empty(self, report):
        if report.kept:
            return
        if not report.examples:
            raise UserError(f"{report.path}: no examples")
        reason, count = report.reasons.most_common(1)[0]
        raise UserError(f"{report.path}: nothing to train on in {report.examples} examples; reason of {count}: {reason}")
