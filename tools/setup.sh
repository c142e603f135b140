#!/usr/bin/env bash
# Installs what the build needs: Debian packages, .venv, nvcc. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(g++ ccache mold ninja-build pkg-config python3-venv libgrpc++-dev protobuf-compiler-grpc protobuf-compiler
  libprotobuf-dev libabsl-dev prometheus-cpp-dev libsqlite3-dev libsqlitecpp-dev nlohmann-json3-dev libcli11-dev
  libyaml-cpp-dev libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev libzstd-dev libxxhash-dev dict-foldoc dictzip)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -q
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
stamp=.venv/.requirements.stamp
if ! [ -x .venv/bin/python ] || ! cmp -s tools/requirements.txt "$stamp"; then
  python3 -m venv .venv
  .venv/bin/pip install -q --upgrade pip
  .venv/bin/pip install -q -r tools/requirements.txt
  .venv/bin/pip install -q --no-deps nvidia-cudnn-frontend==1.32.0 nvidia-cutlass==4.2.0
  cp tools/requirements.txt "$stamp"
fi
