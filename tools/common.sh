# shellcheck shell=bash
# Shared by setup.sh, quickstart.sh and test.sh: stages with times, and errors that say what to do. Source it.

# Prints the message (one line an argument) and ends the script.
die() {
  printf '\nerror: %s\n' "$1" >&2
  shift
  local line
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

# stage TITLE begins a stage; the next one, or stages_end, prints how long it took.
STAGE_TITLES=()
STAGE_SECONDS=()
STAGE_TITLE=
stage() {
  stage_finish
  STAGE_TITLE=$1
  STAGE_START=$SECONDS
  printf '\n== %s\n' "$1"
}

stage_finish() {
  [ -n "$STAGE_TITLE" ] || return 0
  local took=$((SECONDS - STAGE_START))
  printf '   %s: %d s\n' "$STAGE_TITLE" "$took"
  STAGE_TITLES+=("$STAGE_TITLE")
  STAGE_SECONDS+=("$took")
  STAGE_TITLE=
}

# Prints every stage with its time.
stages_end() {
  stage_finish
  local i
  printf '\n'
  for i in "${!STAGE_TITLES[@]}"; do
    printf '%6d s  %s\n' "${STAGE_SECONDS[$i]}" "${STAGE_TITLES[$i]}"
  done
  printf '%6d s  in all\n' "$SECONDS"
}

# need_disk_gb GB WHAT: stops when the file system of the source tree has less than GB free.
need_disk_gb() {
  local free_kb
  free_kb=$(df -Pk . | tail -n 1 | while read -r _ _ _ free _; do echo "$free"; done)
  if [ "$free_kb" -lt $(($1 * 1024 * 1024)) ]; then
    die "$2 needs $1 GB of free disk; only $((free_kb / 1024 / 1024)) GB are free under $PWD." \
      "Free some space, or put the source tree on a larger file system."
  fi
}

# quiet LOG COMMAND...: runs the command with its output in LOG; its status is the command's.
quiet() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1 </dev/null
}

# Prints the end of LOG on standard error.
show_log() {
  printf '\nThe last lines of %s:\n' "$1" >&2
  tail -n 25 "$1" >&2
}
