#!/usr/bin/env bash
# Sets up, builds and runs every test; ends with CTest's summary. Incremental: only what changed is done again.
#
#   ./test.sh [CTEST ARGUMENTS]     for example ./test.sh -L unit
set -euo pipefail
cd "$(dirname "$0")"
. tools/common.sh

tools/setup.sh --tests
[ -d build ] || need_disk_gb 4 "Building"
stage "Configure"
.venv/bin/cmake --preset release
stage "Build"
.venv/bin/cmake --build --preset release
stage_finish
echo
exec .venv/bin/ctest --preset release -j "$(nproc)" "$@"
