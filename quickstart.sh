#!/usr/bin/env bash
# From a bare Debian 12 to a fine-tuned model: sets up, builds, starts a coordinator and two agents on this machine,
# runs one real job on four CPU ranks, and lets Transformers load the result. Safe to repeat; writes only to .venv,
# .cuda, build and out.
#
#   ./quickstart.sh [QUESTION]      QUESTION is put to the finished model, default "What is Linux?"
#
# SWITCHYARD_PORT (default 7070) and SWITCHYARD_METRICS_PORT (default 9464, and the two above it) choose other ports.
set -euo pipefail
cd "$(dirname "$0")"
. tools/common.sh

question=${1:-What is Linux?}
port=${SWITCHYARD_PORT:-7070}
metrics_port=${SWITCHYARD_METRICS_PORT:-9464}
coordinator=127.0.0.1:$port
demo=out/foldoc
bin=build/bin
python=.venv/bin/python
daemons=()

# Ends the daemons; agents end their trainers. Nothing outlives this script.
shut_down() {
  local pid i
  [ ${#daemons[@]} -gt 0 ] || return 0
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do kill "${daemons[$i]}" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do
    for ((i = 0; i < 150; i++)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  daemons=()
}
trap shut_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

check_ports() {
  local taken=() one
  for one in "$port" "$metrics_port" $((metrics_port + 1)) $((metrics_port + 2)); do
    if port_is_taken "$one"; then taken+=("$one"); fi
  done
  [ ${#taken[@]} -eq 0 ] || die "port ${taken[*]} of 127.0.0.1 is taken by another program." \
    "Stop it, or choose others: SWITCHYARD_PORT=17070 SWITCHYARD_METRICS_PORT=19464 ./quickstart.sh"
}

# start NAME PROGRAM ARGUMENTS... begins a daemon with its log in out/foldoc/logs.
start() {
  local name=$1
  shift
  "$@" >"$demo/logs/$name.log" 2>&1 </dev/null &
  daemons+=($!)
}

# Stops with the daemons' last words when one of them is gone.
check_daemons() {
  local pid log
  for pid in "${daemons[@]}"; do
    kill -0 "$pid" 2>/dev/null && continue
    for log in "$demo"/logs/*.log; do show_log "$log"; done
    die "a daemon ended by itself; its log above says why."
  done
}

wait_for_agents() {
  local i
  for ((i = 0; i < 100; i++)); do
    check_daemons
    if [ "$("$bin/switchyard" --coordinator "$coordinator" nodes --output json 2>/dev/null | grep -c '_READY')" -ge 2 ]; then
      return 0
    fi
    sleep 0.2
  done
  "$bin/switchyard" --coordinator "$coordinator" nodes || true
  die "the agents did not connect within 20 s." "Their logs are in $demo/logs."
}

# Data and model are made anew when the dictionary or the tools that make them change.
make_inputs() {
  local wanted
  wanted=$(cat tools/foldoc.py tools/make_demo_model.py tools/requirements-runtime.txt /usr/share/dictd/foldoc.index | sha256sum)
  if [ "$(cat $demo/inputs.stamp 2>/dev/null)" = "$wanted" ]; then
    echo "   $demo/data and $demo/model are up to date"
    return 0
  fi
  rm -rf $demo/data $demo/model
  $python tools/foldoc.py --output $demo/data
  $python tools/make_demo_model.py --data $demo/data/train.jsonl --output $demo/model
  echo "$wanted" >$demo/inputs.stamp
}

check_ports
tools/setup.sh
[ -n "$(find build -maxdepth 0 -name build 2>/dev/null)" ] || need_disk_gb 3 "Building"

stage "Build"
mkdir -p $demo/logs
log=$demo/logs/build.log
: >$log
if ! quiet $log .venv/bin/cmake --preset release; then
  show_log $log
  die "the build could not be configured; the lines above say why."
fi
.venv/bin/cmake --build --preset release --target switchyard switchyard-coordinator switchyard-agent switchyard-trainer ||
  die "the build failed; the compiler's lines above say why."

stage "Dictionary, tokenizer and model"
make_inputs

stage "Coordinator and two agents"
check_ports
rm -rf $demo/state $demo/output
mkdir -p $demo/state
start coordinator $bin/switchyard-coordinator --listen "$coordinator" --metrics 127.0.0.1:"$metrics_port" \
  --state-dir "$PWD/$demo/state/coordinator"
for node in a b; do
  metrics_port=$((metrics_port + 1))
  start agent-$node $bin/switchyard-agent --coordinator "$coordinator" --node node-$node --cpu-slots 2 \
    --metrics 127.0.0.1:$metrics_port --work-dir "$PWD/$demo/state/agent-$node"
done
wait_for_agents
export SWITCHYARD_COORDINATOR=$coordinator
$bin/switchyard nodes

stage "Fine-tuning job on 4 ranks (ep 2 x edp 2)"
sed "s|@ROOT@|$PWD|g" examples/foldoc/job.yaml >$demo/job.yaml
if ! $bin/switchyard submit --watch $demo/job.yaml; then
  check_daemons
  $bin/switchyard events foldoc-qa || true
  die "the job did not succeed; its events are above." "Logs: $demo/logs"
fi

stage "Result"
$bin/switchyard get foldoc-qa --output json >$demo/job.json
$python tools/summarize_job.py $demo/job.json --minimum-fall 1.5
$python tools/generate.py --model $demo/output/final "$question" "What is a compiler?"

stage "Shutting down"
shut_down
rm -rf $demo/state
stages_end
printf '\nThe fine-tuned model: %s\n' "$PWD/$demo/output/final"
