"""Examples from .jsonl, .jsonl.gz, .jsonl.zst and .parquet files, one at a time."""

import gzip
import io
import json
import os
import zlib

from .errors import ExampleError, UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
MAX_LINE_BYTES = 64 << 20


def check_path(path):
    """UserError unless `path` is a readable file of a known kind."""
    if not path.endswith(SUFFIXES):
        raise UserError(f"{path}: unknown kind of file; supported are {', '.join(SUFFIXES)}")
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: the file is empty")


class Documents:
    """Iterates over (number, example or ExampleError); `number` is the 1-based line, or row of a Parquet file.

    `fraction` is the share of the file that has been read.
    """

    def __init__(self, path):
        check_path(path)
        self.path = path
        self.fraction = 0.0

    def __iter__(self):
        return self._rows() if self.path.endswith(".parquet") else self._lines()

    def _lines(self):
        size = os.path.getsize(self.path)
        with open(self.path, "rb") as raw:
            try:
                for number, line in enumerate(self._stream(raw), 1):
                    self.fraction = raw.tell() / size
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    if line.strip():
                        yield number, _parse(line)
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise UserError(f"{self.path}: damaged gzip data: {error}") from error
            except Exception as error:
                if type(error).__name__ == "ZstdError":
                    raise UserError(f"{self.path}: damaged zstd data: {error}") from error
                raise

    def _stream(self, raw):
        if self.path.endswith(".gz"):
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw))
        elif self.path.endswith(".zst"):
            from .zstd import ZstdReader

            stream = io.BufferedReader(ZstdReader(raw))
        else:
            stream = raw
        while line := stream.readline(MAX_LINE_BYTES + 1):
            yield line

    def _rows(self):
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                wanted = [name for name in file.schema_arrow.names if name in FIELDS]
                if not wanted:
                    raise UserError(
                        f"{self.path}: none of the columns {', '.join(file.schema_arrow.names)} is one of "
                        f"{', '.join(FIELDS)}"
                    )
                number = 0
                for batch in file.iter_batches(batch_size=256, columns=wanted):
                    for row in batch.to_pylist():
                        number += 1
                        self.fraction = number / max(1, file.metadata.num_rows)
                        yield number, _without_nulls(row)
        except pyarrow.ArrowException as error:
            raise UserError(f"{self.path}: damaged Parquet data: {error}") from error


FIELDS = ("messages", "prompt", "completion", "text", "tools")


def _parse(line):
    if len(line) > MAX_LINE_BYTES:
        return ExampleError(f"line is longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        example = json.loads(line.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        return ExampleError(f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        return ExampleError(f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return ExampleError("not JSON: nested too deeply")
    if not isinstance(example, dict):
        return ExampleError(f"not a JSON object but a {type(example).__name__}")
    return example


def _without_nulls(value):
    """Parquet gives every field of a struct to every row; absent ones are null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
