#!/usr/bin/env python3
"""Keeps the source tree in order: who may include whom, file shape, banned words, commented protos, docstrings.

Prints one line a violation, "file:line: rule: what", and exits with 1 if there is any.

    tests/tidy/check_tree.py [ROOT]
"""

import ast
import pathlib
import re
import subprocess
import sys

MAX_LINES = 450
MAX_COLUMNS = 100
# Prose and tables may be wider: they are not read beside other code.
MAX_COLUMNS_TEXT = 140

CODE = {".h", ".cc", ".cu", ".cuh", ".proto"}
SCRIPTS = {".py", ".sh"}
SKIPPED = re.compile(r"(^|/)(build[^/]*|\.venv|\.cuda|\.git|out|__pycache__|golden)(/|$)")

# Room -> include prefixes that it must not have. Prefixes ending in "/" are rooms of this tree or of a library.
GRPC = ("grpc", "google/protobuf", "google/rpc", "switchyard/")  # switchyard/: generated from proto/
TORCH = ("torch/", "ATen/", "c10/")
PROMETHEUS = ("prometheus/",)
HTTP = ("httplib",)
FORBIDDEN = {
    "kernels": TORCH + GRPC + PROMETHEUS + HTTP + ("coordinator/", "worker/", "common/rpc/", "common/telemetry/"),
    "common": TORCH + GRPC + PROMETHEUS + HTTP + ("coordinator/", "worker/", "kernels/"),
    "coordinator": TORCH + HTTP + ("worker/", "kernels/", "cuda", "nccl"),
    "worker/agent": TORCH + HTTP + ("coordinator/", "worker/trainer/", "kernels/", "cuda", "nccl"),
    "worker/trainer": GRPC + PROMETHEUS + HTTP + ("coordinator/", "worker/agent/", "common/rpc/", "common/telemetry/", "common/http/"),
}
# Rooms inside rooms that may do more.
ALLOWED = {
    "common/rpc": GRPC,
    "common/http": HTTP,
    "common/telemetry": GRPC + PROMETHEUS + ("common/rpc/",),
}

_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
_WORDS = [
    (re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), "unfinished work is not committed"),
    (re.compile(r"(?<![\w.$}{)])/(?:(?:work|root)/|home/(?!user/))[\w.-]+"), "path of one machine"),
]
_CODE_WORDS = [
    (re.compile(r"^using namespace\b"), "using namespace at namespace scope"),
    (re.compile(r"\bstd::string_view\b"), "Debian's absl::string_view is another type: use absl::string_view"),
]
# std::string_view is right where absl is not spoken: inside the trainer and the kernels, outside of headers.
_STD_STRING_VIEW_ROOMS = ("worker/trainer/", "kernels/", "tests/trainer/", "tests/kernels/")


def files_of(root):
    """Returns the tracked and new files, or, without git (a source archive), all but build outputs."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        listed = [str(path.relative_to(root)) for path in root.rglob("*")]
    return sorted(name for name in listed if not SKIPPED.search(name) and (root / name).is_file())


def room_of(name):
    """Returns the room of the layering table that a file belongs to, or None."""
    return next((room for room in FORBIDDEN if name.startswith(room + "/")), None)


def check_includes(name, lines):
    """Layering: which headers this file may include."""
    room = room_of(name)
    allowed = next((prefixes for sub, prefixes in ALLOWED.items() if name.startswith(sub + "/")), ())
    torch_line = grpc_line = 0
    for number, line in enumerate(lines, 1):
        match = _INCLUDE.match(line)
        if not match:
            continue
        header = match.group(2)
        if room:
            for prefix in FORBIDDEN[room]:
                if header.startswith(prefix) and not header.startswith(allowed or "\0"):
                    yield number, "layering", f"{room} must not include {header}"
                    break
        torch_line = torch_line or (number if header.startswith(TORCH) else 0)
        grpc_line = grpc_line or (number if header.startswith(GRPC) or header.endswith(".pb.h") else 0)
    if torch_line and grpc_line:
        yield max(torch_line, grpc_line), "layering", "one file includes both torch and protobuf or gRPC headers"


def raw_string_lines(lines):
    """Returns the numbers of C++ lines that touch a raw string of several lines: SQL, JSON, as they are."""
    inside, end = set(), None
    for number, line in enumerate(lines, 1):
        if end is None:
            opened = re.search(r'R"([^()\\\s]{0,16})\(', line)
            if opened:
                inside.add(number)
                if f'){opened.group(1)}"' not in line[opened.end() :]:
                    end = f'){opened.group(1)}"'
        else:
            inside.add(number)
            if end in line:
                end = None
    return inside


def check_shape(name, lines):
    """Length of the file, width of its lines, white space."""
    suffix = pathlib.PurePath(name).suffix
    is_code = suffix in CODE | SCRIPTS
    if is_code and len(lines) > MAX_LINES:
        yield MAX_LINES + 1, "length", f"{len(lines)} lines; at most {MAX_LINES}: split it by duty"
    limit = MAX_COLUMNS if suffix in CODE else MAX_COLUMNS_TEXT if suffix in SCRIPTS else None
    raw = raw_string_lines(lines) if suffix in CODE - {".proto"} else ()
    for number, line in enumerate(lines, 1):
        if limit and len(line) > limit and "http" not in line and number not in raw:
            yield number, "columns", f"{len(line)} columns; at most {limit}"
        if is_code and line != line.rstrip():
            yield number, "white space", "trailing blanks"


def check_words(name, lines):
    """Words that have no place in the tree."""
    is_code = pathlib.PurePath(name).suffix in CODE
    for number, line in enumerate(lines, 1):
        for pattern, why in _WORDS:
            if pattern.search(line):
                yield number, "words", f"{why}: {line.strip()[:80]}"
        if not is_code:
            continue
        code = line.split("//")[0]
        for pattern, why in _CODE_WORDS:
            if not pattern.search(code):
                continue
            if "string_view" in pattern.pattern and not name.endswith(".h") and name.startswith(_STD_STRING_VIEW_ROOMS):
                continue
            yield number, "words", why


def check_header(name, lines):
    """Headers begin with what they are for, and are guarded."""
    if not name.endswith((".h", ".cuh")):
        return
    if not lines or not lines[0].startswith("//"):
        yield 1, "header", "begin with a comment saying what this header is for"
    if not any(line.strip() == "#pragma once" for line in lines):
        yield 1, "header", "no #pragma once"


_PROTO_THING = re.compile(
    r"^\s*(?:(message|enum|service|rpc|oneof)\s+(\w+)|"
    r"(?:repeated\s+|optional\s+)?[\w.]+(?:<[^>]*>)?\s+(\w+)\s*=\s*\d+|([A-Z][A-Z0-9_]*)\s*=\s*\d+)"
)


def check_proto(name, lines):
    """Every message, field, enum, value, service and rpc has a comment."""
    if not name.endswith(".proto"):
        return
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith(("//", "syntax", "package", "import", "option", "reserved")):
            continue
        match = _PROTO_THING.match(line)
        if match and not (number > 1 and lines[number - 2].strip().startswith("//")) and "//" not in line:
            yield number, "proto", f"{next(filter(None, match.groups()[1:]))} has no comment"


def check_python(name, text):
    """Python parses, and its modules, public functions and classes say what they are."""
    if not name.endswith(".py"):
        return
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield error.lineno or 1, "python", f"does not parse: {error.msg}"
        return
    if text.strip() and not ast.get_docstring(tree):
        yield 1, "python", "the module has no docstring"
    if name.startswith("tests/"):
        return  # names of tests are sentences
    for node in tree.body:
        if getattr(node, "name", "") == "main":
            continue  # the module's docstring says it
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.lineno, "python", f"{node.name} has no docstring"


def check_shell(root, name, lines):
    """Shell scripts parse and stop at the first error."""
    if not name.endswith(".sh") and not (lines and re.match(r"#!.*\b(ba)?sh\b", lines[0])):
        return
    parsed = subprocess.run(["bash", "-n", str(root / name)], capture_output=True, text=True, check=False)
    if parsed.returncode != 0:
        yield 1, "shell", parsed.stderr.strip().replace("\n", "; ")
    if len(lines) > 3 and lines[0].startswith("#!") and not any(re.match(r"\s*set -e", line) for line in lines):
        yield 1, "shell", "no 'set -euo pipefail'"


def check_dependencies(root):
    """Every package that set-up installs has its reason in docs/dependencies.md."""
    setup, document = root / "tools/setup.sh", root / "docs/dependencies.md"
    if not setup.exists():
        return
    known = document.read_text() if document.exists() else ""
    listed = re.search(r"^packages=\((.*?)\)", setup.read_text(), re.S | re.M)
    wanted = {package: setup for package in (listed.group(1).split() if listed else ())}
    for requirements in root.glob("tools/requirements*.txt"):
        for line in requirements.read_text().splitlines():
            if line and not line.startswith(("#", "-r ")):
                wanted[re.split(r"[\[<>=~! ]", line)[0]] = requirements
    for package, file in sorted(wanted.items()):
        if not re.search(rf"`{re.escape(package)}[`\[=<>]", known):
            yield f"{file.relative_to(root)}:1: dependencies: {package} has no reason in docs/dependencies.md"


def check_file(root, name):
    """Yields (line, rule, message) for one file."""
    try:
        text = (root / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # a binary file
    lines = text.splitlines()
    if name.startswith("tests/tidy/"):  # holds the very words and broken samples that the rules look for
        yield from check_shape(name, lines)
        yield from check_python(name, text)
        return
    yield from check_shape(name, lines)
    yield from check_words(name, lines)
    if pathlib.PurePath(name).suffix in CODE - {".proto"}:
        yield from check_includes(name, lines)
        yield from check_header(name, lines)
    yield from check_proto(name, lines)
    yield from check_python(name, text)
    yield from check_shell(root, name, lines)


def check_tree(root):
    """Returns every violation of the tree as "file:line: rule: message"."""
    violations = [
        f"{name}:{line}: {rule}: {message}"
        for name in files_of(root)
        for line, rule, message in check_file(root, name)
    ]
    return violations + list(check_dependencies(root))


def main():
    """Command line."""
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()
    violations = check_tree(root)
    print("\n".join(violations) or f"{len(files_of(root))} files in order")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
