#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each for a while; a finding ends the script with its input kept.
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]     default 600 s each; targets as in tests/fuzz/corpus
#
# Needs clang with its runtime: tools/setup.sh --fuzz, or on Debian 12 apt-get install clang-14 libclang-rt-14-dev.
# New inputs are collected in build-fuzz/corpus; the committed corpora are only read.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/common.sh

seconds=${1:-600}
shift $(($# > 0 ? 1 : 0))
targets=("$@")
trap 'rm -rf /dev/shm/switchyard-fuzz-$$-*' EXIT  # libFuzzer ends without cleaning up; $$ is its parent
[ ${#targets[@]} -gt 0 ] || targets=(job_spec safetensors token_shard trainer_lines tokens)
command -v clang++-14 >/dev/null || die "clang++-14 is not installed." "Run: tools/setup.sh --fuzz"

.venv/bin/cmake --preset fuzz >/dev/null
.venv/bin/cmake --build build-fuzz --target fuzzers
for target in "${targets[@]}"; do
  mkdir -p "build-fuzz/corpus/$target" build-fuzz/findings
  echo "== $target for $seconds s"
  nice -n 15 "build-fuzz/bin/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 \
    -print_final_stats=1 -verbosity=0 "-artifact_prefix=build-fuzz/findings/$target-" \
    "build-fuzz/corpus/$target" "tests/fuzz/corpus/$target" ||
    die "$target has a finding." "The input is in build-fuzz/findings; add it to tests/fuzz/corpus/$target with the fix."
  # Edges (cov) and features (ft) that the collected inputs (corp) reach.
  "build-fuzz/bin/fuzz_$target" -runs=0 "build-fuzz/corpus/$target" "tests/fuzz/corpus/$target" 2>&1 |
    grep -o 'cov: .* corp: [^ ]*' | tail -n 1
done
echo "no finding"
