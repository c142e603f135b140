"""Each rule of check_tree.py finds its violation, and lets good files pass."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import check_tree  # noqa: E402

GOOD = {
    "coordinator/plan/planner.h": "// Plans.\n#pragma once\n#include \"common/mesh.h\"\n#include \"switchyard/v1/plan.pb.h\"\n",
    "worker/trainer/moe/layer.cc": "#include <ATen/core/Tensor.h>\n\n#include \"kernels/permute.h\"\n",
    "common/rpc/channel.cc": "#include <grpcpp/channel.h>\n\n#include \"common/log.h\"\n",
    "proto/switchyard/v1/a.proto": "// A file.\nsyntax = \"proto3\";\n// A message.\nmessage A {\n  // A field.\n  int32 b = 1;\n}\n",
    "coordinator/job/sql.cc": 'const char* kSql = R"(\nSELECT ' + "x, " * 60 + '1\n)";\n',
    "tools/a.py": '"""A tool."""\n\n\ndef run():\n    """Runs."""\n',
    "tools/setup.sh": "#!/usr/bin/env bash\n# Sets up.\nset -euo pipefail\npackages=(ninja-build\n  g++)\n",
    "tools/requirements.txt": "# Python.\ntorch==2.11.0\nnumpy\n",
    "docs/dependencies.md": "`g++` `ninja-build` `torch==2.11.0` `numpy` with reasons\n",
    "a.sh": "#!/usr/bin/env bash\n# Does a thing.\nset -euo pipefail\necho a\n",
}

BAD = [
    ("kernels/a.cu", "#include <ATen/core/Tensor.h>\n", "layering"),
    ("kernels/a.cu", "#include \"worker/trainer/a.h\"\n", "layering"),
    ("common/a.cc", "#include <grpcpp/channel.h>\n", "layering"),
    ("common/a.cc", "#include \"coordinator/plan/planner.h\"\n", "layering"),
    ("common/telemetry/a.cc", "#include <torch/torch.h>\n", "layering"),
    ("coordinator/a.cc", "#include \"worker/agent/agent.h\"\n", "layering"),
    ("worker/agent/a.cc", "#include \"worker/trainer/report.h\"\n", "layering"),
    ("worker/agent/a.cc", "#include \"coordinator/job/job.h\"\n", "layering"),
    ("worker/trainer/a.cc", "#include \"worker/agent/journal.h\"\n", "layering"),
    ("worker/trainer/a.cc", "#include \"switchyard/trainer/v1/lines.pb.h\"\n", "layering"),
    ("tests/a.cc", "#include <c10/core/Device.h>\n#include <google/protobuf/message.h>\n", "layering"),
    ("common/a.cc", "int x;\n" * 451, "length"),
    ("common/a.cc", "// " + "x" * 98 + "\n", "columns"),
    ("common/a.cc", "int x; \n", "white space"),
    ("common/a.cc", "using namespace std;\n", "words"),
    ("common/a.h", "// A.\n#pragma once\nvoid F(std::string_view text);\n", "words"),
    ("common/a.cc", "// TODO: write\n", "words"),
    ("docs/a.md", "Look into /work/main.\n", "words"),
    ("coordinator/a.cc", "auto path = \"/home/somebody/x\";\n", "words"),
    ("coordinator/a.cc", "auto a = R\"(x)\";\nint " + "x" * 100 + ";\n", "columns"),
    ("common/a.h", "#pragma once\n", "header"),
    ("common/a.h", "// A.\n", "header"),
    ("proto/a.proto", "// A.\nsyntax = \"proto3\";\n// M.\nmessage M {\n  int32 b = 1;\n}\n", "proto"),
    ("proto/a.proto", "// A.\nsyntax = \"proto3\";\n\nmessage M {}\n", "proto"),
    ("proto/a.proto", "// A.\n// E.\nenum E {\n  E_UNSPECIFIED = 0;\n}\n", "proto"),
    ("tools/a.py", "x = 1\n", "python"),
    ("tools/a.py", '"""A."""\n\n\ndef run():\n    pass\n', "python"),
    ("tools/a.py", '"""A."""\nif\n', "python"),
    ("tools/setup.sh", "#!/usr/bin/env bash\n# Sets up.\nset -e\npackages=(g++ new)\n", "dependencies"),
    ("tools/requirements.txt", "torch>=2\nleft-pad\n", "dependencies"),
    ("a.sh", "#!/usr/bin/env bash\nset -e\nif true; then\n\n", "shell"),
    ("a.sh", "#!/usr/bin/env bash\n# Does.\necho a\necho b\n", "shell"),
]


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_tree_in_order_has_no_violations(tmp_path):
    write(tmp_path, GOOD)
    assert check_tree.check_tree(tmp_path) == []


@pytest.mark.parametrize(("name", "text", "rule"), BAD)
def test_a_violation_is_found_and_named(tmp_path, name, text, rule):
    write(tmp_path, GOOD | {name: text})
    violations = check_tree.check_tree(tmp_path)
    assert [line.split(":")[0] for line in violations] == [name], violations
    assert violations[0].split(": ")[1] == rule
