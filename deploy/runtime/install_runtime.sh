#!/usr/bin/env bash
# Installs the trainer's runtime into a directory of its own version and makes it the current one.
#
#   PREFIX/VERSION/bin/switchyard-trainer    the engine
#   PREFIX/VERSION/venv                      Python with LibTorch, NCCL and what data preparation needs
#   PREFIX/VERSION/tools                     data preparation
#   PREFIX/VERSION/runtime.json              what it is; written last, so a directory without it is incomplete
#   PREFIX/current -> VERSION                what an agent takes at its start
#
# Safe to repeat. Runtimes of other versions stay: agents that run keep theirs, and going back is moving the link.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: switchyard-install-runtime [--source DIR] [--prefix DIR] [--wheels DIR] [--force]
  --source DIR   trainer, tools and requirements.txt (default /usr/lib/switchyard/trainer)
  --prefix DIR   where runtimes are (default /opt/switchyard/runtime)
  --wheels DIR   take Python packages from here only, without a network
  --force        install again over a complete runtime of this version
TEXT
}

die() {
  printf 'switchyard-install-runtime: %s\n' "$1" >&2
  shift
  local line
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

source=/usr/lib/switchyard/trainer
prefix=/opt/switchyard/runtime
wheels=
force=
while [ $# -gt 0 ]; do
  case $1 in
    --source | --prefix | --wheels)
      [ $# -gt 1 ] || die "$1 needs a directory"
      case $1 in --source) source=$2 ;; --prefix) prefix=$2 ;; *) wheels=$(realpath "$2") ;; esac
      shift 2
      ;;
    --force)
      force=1
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) usage >&2; exit 2 ;;
  esac
done

[ -x "$source/bin/switchyard-trainer" ] || die "$source holds no trainer" "install the package switchyard-trainer, or give --source"
version=$(cat "$source/VERSION")
mkdir -p "$prefix"
prefix=$(realpath "$prefix")
target=$prefix/$version
umask 022
exec 9>"$prefix/.lock"
flock -n 9 || die "another installation into $prefix is running"

make_current() {
  ln -sfn "$version" "$prefix/.current.new"
  mv -T "$prefix/.current.new" "$prefix/current"
  printf '%s is current: restart the agent to use it\n' "$target"
}

if [ -e "$target/runtime.json" ] && [ -z "$force" ]; then
  printf '%s is installed\n' "$target"
  make_current
  exit 0
fi

free_gb=$(($(df -Pk "$prefix" | awk 'NR == 2 { print $4 }') / 1024 / 1024))
[ "$free_gb" -ge 10 ] || die "$prefix has $free_gb GB free, LibTorch and its libraries need 10 while they are installed"

# A directory that running agents use is not changed under them, only a half-installed one.
rm -f "$target/runtime.json"
mkdir -p "$target"
log=$target/install.log
printf 'installing runtime %s into %s; log: %s\n' "$version" "$target" "$log"
/usr/bin/python3 -m venv --clear "$target/venv" >"$log" 2>&1 ||
  die "python3 -m venv failed, see $log" "on Debian it is in the package python3-venv"
pip=("$target/venv/bin/python" -m pip install --no-compile --disable-pip-version-check --progress-bar off)
[ -z "$wheels" ] || pip+=(--no-index --find-links "$wheels")
if ! "${pip[@]}" -r "$source/requirements.txt" >>"$log" 2>&1; then
  tail -n 20 "$log" >&2
  die "the Python packages could not be installed, see $log" \
    "without a network: pip download -r $source/requirements.txt -d DIR elsewhere, then --wheels DIR"
fi

rm -rf "${target:?}/bin" "${target:?}/tools" "${target:?}/lib"
cp -R "$source/bin" "$source/tools" "$target/"
mkdir "$target/lib"
site=$("$target/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -s "${site/#$target/..}/torch/lib" "$target/lib/torch"
ln -s "${site/#$target/..}/nvidia" "$target/lib/nvidia"

# It must load here, with the libraries that were installed here.
said=$("$target/bin/switchyard-trainer" --version 2>>"$log") || die "the trainer does not start, see $log"
[ "$said" = "$version" ] || die "$source/bin/switchyard-trainer is version $said, $source/VERSION says $version"
"$target/venv/bin/python" - "$target" "$version" <<'PYTHON' >>"$log" 2>&1 || die "the Python packages do not load, see $log"
import importlib.metadata as metadata
import json
import os
import platform
import sys

import jinja2, pyarrow, safetensors, tokenizers, tqdm, transformers, xxhash, zstandard  # noqa: E401, F401

directory, version = sys.argv[1:]
manifest = {
    "version": version,
    "python": platform.python_version(),
    "torch": metadata.version("torch"),
    "packages": {name: metadata.version(name) for name in ("transformers", "tokenizers", "pyarrow", "numpy")},
}
with open(directory + "/runtime.json.new", "w", encoding="utf-8") as file:
    json.dump(manifest, file, indent=2)
    file.write("\n")
    file.flush()
    os.fsync(file.fileno())
os.replace(directory + "/runtime.json.new", directory + "/runtime.json")
PYTHON
make_current
