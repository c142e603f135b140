#!/bin/sh
# Slurm's tools for tests, by the name it is called by. $FAKE_SLURM/jobs/ID holds "STATE|REASON|NODES|NAME"; a file
# $FAKE_SLURM/trouble holds what goes wrong: "down", "refuse", "lost" (submitted, but the answer is lost; once).
set -eu
tool=$(basename "$0")
trouble=$(cat "$FAKE_SLURM/trouble" 2>/dev/null || true)
echo "$tool $*" >>"$FAKE_SLURM/calls"
if [ "$trouble" = down ]; then
  echo "$tool: error: Unable to contact slurm controller (connect failure)" >&2
  exit 1
fi
case $tool in
  squeue)
    for job in "$FAKE_SLURM"/jobs/*; do
      [ ! -e "$job" ] || echo "$(basename "$job")|$(cat "$job")"
    done
    ;;
  sacct)
    if [ ! -d "$FAKE_SLURM/accounts" ]; then
      echo "Slurm accounting storage is disabled" >&2
      exit 1
    fi
    for job in "$FAKE_SLURM"/accounts/*; do
      [ ! -e "$job" ] || echo "$(basename "$job")|$(cat "$job")"
    done
    ;;
  sbatch)
    if [ "$trouble" = refuse ]; then
      echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
      exit 1
    fi
    for argument in "$@"; do
      case $argument in --job-name=*) name=${argument#--job-name=} ;; esac
    done
    id=$(($(cat "$FAKE_SLURM/last" 2>/dev/null || echo 100) + 1))
    echo "$id" >"$FAKE_SLURM/last"
    cat >"$FAKE_SLURM/script.$id"
    echo "PENDING|Resources||$name" >"$FAKE_SLURM/jobs/$id"
    if [ "$trouble" = lost ]; then
      rm "$FAKE_SLURM/trouble"
      echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
      exit 1
    fi
    echo "$id"
    ;;
  scancel)
    sed -i 's/^[A-Z]*/CANCELLED/' "$FAKE_SLURM/jobs/$1"
    ;;
esac
