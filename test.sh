#!/usr/bin/env bash
# Sets up, builds and runs every test.
set -euo pipefail
cd "$(dirname "$0")"
tools/setup.sh
.venv/bin/cmake --preset release
.venv/bin/cmake --build --preset release
.venv/bin/ctest --preset release
