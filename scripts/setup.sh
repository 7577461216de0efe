#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes everything a run or the tests need: virtual environment, packages, the simulated NPU, the upstream sources.
# Does again only what changed. usage: scripts/setup.sh [--dev] [--prepare RUN.toml [--seed N]]
#   --dev       also what scripts/test.sh needs
#   --prepare   also make the model of that run file, while packages still install
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

NEEDED_MEMORY_MIB="${RECIPE_MIN_MEMORY_MIB:-8000}"
NEEDED_DISK_MIB=6000
STAMPS="$VENV/stamps"
LOGS="$VENV/logs"
dev=no prepare="" seed=()
while (($#)); do
    case "$1" in
        --dev) dev=yes ;;
        --prepare) prepare="${2:?--prepare needs a run file}" && shift ;;
        --seed) seed=(--seed "${2:?--seed needs a number}") && shift ;;
        *) fail "unknown option $1; usage: scripts/setup.sh [--dev] [--prepare RUN.toml [--seed N]]" ;;
    esac
    shift
done

fresh() { [[ -f "$STAMPS/$1" && "$(<"$STAMPS/$1")" == "$2" ]]; }
stamp() { printf '%s\n' "$2" >"$STAMPS/$1"; }
# The line of a log that says most about a failure.
last_error() { grep -E '^(ERROR|error|.*[Ee]rror:)' "$1" 2>/dev/null | tail -n 1 || tail -n 1 "$1"; }

check_machine() {
    local memory free
    command -v g++ >/dev/null || fail "no g++ found; the simulated NPU is compiled here: install g++ (Debian: apt-get install g++)"
    memory="$(memory_mib)"
    ((memory >= NEEDED_MEMORY_MIB)) ||
        fail "this machine has $memory MiB of memory; a run needs about $NEEDED_MEMORY_MIB MiB"
    if [[ ! -f "$STAMPS/stack" ]]; then
        free="$(df -Pm "$REPO" | awk 'NR == 2 { print $4 }')"
        ((free >= NEEDED_DISK_MIB)) || fail "$REPO has $free MiB of free disk; set-up needs about $NEEDED_DISK_MIB MiB"
    fi
}

make_venv() {
    local base
    [[ -x "$PYTHON" ]] && return
    base="$(find_python)"
    say "setup: virtual environment ($base)"
    "$base" -c 'import ensurepip, sysconfig, os; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
        fail "$base lacks its venv module or its C headers; install them (Debian: apt-get install python3-venv python3-dev)"
    "$base" -m venv "$VENV" || fail "making the virtual environment $VENV failed"
}

# install NAME FILE: the requirements in FILE, once.
install() {
    "$PYTHON" -m pip install --no-compile --disable-pip-version-check --no-input -r "$2" >"$LOGS/$1.log" 2>&1 ||
        fail "installing packages failed: $(last_error "$LOGS/$1.log") (log: $LOGS/$1.log)"
}

running=()
stop_background() {
    local pid
    for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap stop_background EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# background NAME COMMAND...: its pid is the command's own, so that it can be stopped.
background() {
    local name="$1"
    shift
    (exec "$@") >"$LOGS/$name.log" 2>&1 &
    running+=("$!")
    started["$name"]=$!
}
declare -A started=()

# await NAME TEXT: wait for that background command; TEXT says what failed.
await() {
    local pid="${started[$1]:-}"
    [[ -n "$pid" ]] || return 0
    wait "$pid" || fail "$2: $(last_error "$LOGS/$1.log") (log: $LOGS/$1.log)"
    unset "started[$1]"
}

# All that decides what upstream/ holds, and what it holds: a sync by hand, for instance --restore, is seen too.
sync_state() {
    local files
    mapfile -t files < <(find recipe/sources upstreams.toml ./*_patches upstream/MANIFEST.json -type f \
        \( -path 'recipe/*.py' -o -name '*.toml' -o -name '*.patch' -o -name MANIFEST.json \) 2>/dev/null | LC_ALL=C sort)
    hash_of "${files[*]}" "${files[@]}"
}

check_machine
make_venv
mkdir -p "$STAMPS" "$LOGS"
cd "$REPO"

requirements="$REPO/requirements-sim.txt"
sed '/^# --- second part/,$d' "$requirements" >"$STAMPS/first.txt"
base_hash="$(hash_of "$VENV" "$STAMPS/first.txt")"
stack_hash="$(hash_of "$VENV" "$requirements")"
dev_hash="$(hash_of "$VENV" "$REPO/requirements-dev.txt")"
mapfile -t sim_files < <(find npu_sim -type f \( -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.toml' \) \
    -not -path '*/build/*' | LC_ALL=C sort)
sim_hash="$(hash_of "$base_hash ${sim_files[*]}" "${sim_files[@]}")"

if ! fresh base "$base_hash"; then
    say "setup: packages, first part (torch, transformers)"
    install base "$STAMPS/first.txt"
    stamp base "$base_hash"
fi
if ! fresh sync "$(sync_state)"; then
    say "setup: upstream sources"
    background sync "$PYTHON" -m recipe sync --profile sim
fi
if ! fresh npu_sim "$sim_hash"; then
    say "setup: compiling the simulated NPU"
    rm -rf "$VENV/wheels"
    MAX_JOBS="${MAX_JOBS:-2}" background npu_sim "$PYTHON" -m pip wheel --disable-pip-version-check --no-input \
        --no-build-isolation --no-deps --wheel-dir "$VENV/wheels" ./npu_sim
fi
if [[ -n "$prepare" ]]; then
    background prepare "$PYTHON" -m recipe launch "$prepare" --prepare "${seed[@]}"
fi
if ! fresh stack "$stack_hash"; then
    say "setup: packages, second part (Ray, and what verl and vLLM import)"
    install stack "$requirements"
    stamp stack "$stack_hash"
fi
if [[ "$dev" == yes ]] && ! fresh dev "$dev_hash"; then
    say "setup: test tools"
    install dev "$REPO/requirements-dev.txt"
    stamp dev "$dev_hash"
fi
await sync "fetching the upstream sources failed"
stamp sync "$(sync_state)"
if [[ -n "${started[npu_sim]:-}" ]]; then
    await npu_sim "compiling the simulated NPU failed"
    "$PYTHON" -m pip install --disable-pip-version-check --no-input --no-deps --force-reinstall "$VENV"/wheels/*.whl \
        >"$LOGS/npu_sim-install.log" 2>&1 || fail "installing the simulated NPU failed (log: $LOGS/npu_sim-install.log)"
    stamp npu_sim "$sim_hash"
fi
if [[ -n "${started[prepare]:-}" ]]; then
    say "setup: waiting for the tiny model"
    await prepare "making the model failed"
fi
say "setup: ready"
