#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes everything a run or the tests need: virtual environment, packages, the simulated NPU, the upstream sources.
# Does again only what changed.
#
# usage: scripts/setup.sh [--dev] [--prepare RUN.toml [OPTIONS OF A RUN]]
#   --dev       also what scripts/test.sh needs
#   --prepare   also look at that run file, before anything is fetched, and make its model while packages still install
#
# RECIPE_VENV names another place than .venv/, RECIPE_PYTHON the interpreter (3.10 to 3.12) to make it with.
# example: bash scripts/setup.sh --dev
# exit code: 0 all is there; 1 something could not be made (one line says why); 2 a mistake in the options; 130, 143 stopped
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
own_python

NEEDED_MEMORY_MIB="${RECIPE_MIN_MEMORY_MIB:-8000}"
# A package index that has torch without several gigabytes of CUDA, such as PyTorch's own for CPUs; what does not answer is
# passed over.
TORCH_INDEX="${RECIPE_TORCH_INDEX:-}"
# The environment has 1.6 GiB without CUDA and 5.7 GiB with it; what is fetched is there twice for a while.
NEEDED_DISK_MIB="${RECIPE_MIN_DISK_MIB:-$([[ -n "$TORCH_INDEX" ]] && echo 4000 || echo 10000)}"
SAY_EVERY_S=20
STAMPS="$VENV/stamps"
LOGS="$VENV/logs"
usage="usage: scripts/setup.sh [--dev] [--prepare RUN.toml [OPTIONS OF A RUN]]"
dev=no prepare=()
while (($#)); do
    case "$1" in
        -h | --help) help_of "${BASH_SOURCE[0]}" && exit 0 ;;
        --dev) dev=yes && shift ;;
        --prepare)
            (($# >= 2)) || refuse "--prepare needs a run file; $usage"
            shift
            prepare=("$@") && break
            ;;
        *) refuse "unknown option $1; $usage" ;;
    esac
done

say() { printf '[%d:%02d] setup: %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }
fresh() { [[ -f "$STAMPS/$1" && "$(<"$STAMPS/$1")" == "$2" ]]; }
stamp() { printf '%s\n' "$2" >"$STAMPS/$1"; }

# last_error LOG: the line that says most about a failure.
last_error() {
    if grep -qE 'NewConnectionError|ConnectTimeoutError|NameResolutionError|ProxyError|ReadTimeoutError' "$1"; then
        printf 'the package index cannot be reached; look at the network, proxy variables and "pip config list"'
    else
        grep -E '^(ERROR|error|.*[Ee]rror:)' "$1" | tail -n 1 | grep . || tail -n 1 "$1"
    fi
}

check_machine() {
    local memory free special=$'[][:space:]\'"$`&;()|<>*?#\\\\[]'
    [[ ! "$VENV" =~ $special ]] ||
        refuse "$VENV: Ray cannot start workers from a path with '${BASH_REMATCH[0]}' in it; clone to another directory, or name one in RECIPE_VENV"
    command -v g++ >/dev/null || fail "no g++ found; the simulated NPU is compiled here: install g++ (Debian: apt-get install g++)"
    memory="$(memory_mib)"
    ((memory >= NEEDED_MEMORY_MIB)) ||
        fail "this machine has $memory MiB of memory; a run needs about $NEEDED_MEMORY_MIB MiB"
    if [[ ! -f "$STAMPS/stack" ]]; then
        free="$(df -Pm "$REPO" | awk 'NR == 2 { print $4 }')"
        ((free >= NEEDED_DISK_MIB)) || fail "$REPO has $free MiB of free disk; set-up needs about $NEEDED_DISK_MIB MiB (less where torch comes without CUDA: RECIPE_MIN_DISK_MIB)"
    fi
}

# Two set-ups of one environment would write over each other.
lock_venv() {
    (mkdir -p "$VENV" && : >>"$VENV/setup.lock") 2>/dev/null ||
        fail "$VENV cannot be written to; clone to a directory of yours, or name another place in RECIPE_VENV"
    exec 9>>"$VENV/setup.lock"
    flock -n 9 || { say "another set-up of $VENV is at work; waiting for it" && flock 9; }
}

make_venv() {
    local have base
    have="$(python_version "$PYTHON")"
    # A set-up that was stopped here leaves an environment without pip, which is finished below.
    if [[ -n "$have" ]] && "$PYTHON" -c 'import pip' 2>/dev/null; then
        supported "$have" || fail "$VENV has Python $have; this needs 3.10, 3.11 or 3.12: remove it, or name another in RECIPE_VENV"
        [[ -z "${RECIPE_PYTHON:-}" || "$(python_version "$RECIPE_PYTHON")" == "$have" ]] ||
            refuse "RECIPE_PYTHON is $RECIPE_PYTHON, but $VENV has Python $have: remove it, or name another in RECIPE_VENV"
        return
    fi
    base="$(find_python)"
    say "virtual environment ($base)"
    "$base" -c 'import ensurepip, sysconfig, os; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
        fail "$base lacks its venv module or its C headers; install them (Debian: apt-get install python3-venv python3-dev)"
    "$base" -m venv "$VENV" || fail "making the virtual environment $VENV failed"
}

running=()
stop_background() {
    local pid
    for pid in "${running[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    wait
    rm -rf "$VENV/tmp"
}
# stopped EXIT_CODE
stopped() {
    printf 'error: set-up was stopped; the same command goes on from here\n' >&2
    exit "$1"
}
trap stop_background EXIT
trap 'stopped 130' INT
trap 'stopped 129' HUP
trap 'stopped 143' TERM

# background NAME COMMAND...: in a process group of its own, so that all of it can be stopped.
background() {
    local name="$1"
    shift
    set -m
    (exec "$@") >"$LOGS/$name.log" 2>&1 9>&- </dev/null &
    set +m
    running+=("$!")
    started["$name"]=$!
}
declare -A started=()

# finished NAME: wait for that background command, and return what it returned. Now and then says what it does.
finished() {
    local pid="${started[$1]:-}" said=$SECONDS
    [[ -n "$pid" ]] || return 0
    unset "started[$1]"
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        ((SECONDS - said < SAY_EVERY_S)) && continue
        said=$SECONDS
        say "  $(doing "$LOGS/$1.log")"
    done
    wait "$pid"
}

# await NAME TEXT: the same for what must not fail; TEXT says what failed if it does.
await() { finished "$1" || fail "$2: $(last_error "$LOGS/$1.log") (log: $LOGS/$1.log)"; }

# doing LOG: the last thing that a log tells, short enough for a line.
doing() {
    local line
    line="$(tr '\r' '\n' <"$1" | grep -aE '^ *(Collecting|Downloading|Processing|Building|Installing|\[[0-9])' | tail -n 1 || true)"
    line="${line#"${line%%[! ]*}"}"
    # Of a file only its name.
    printf '%.70s' "$(sed -E 's|(file://)?/[^ ]*/||' <<<"${line:-still at it}")"
}

# With a temporary directory of its own: /tmp may be too small for torch.
pip=(env TMPDIR="$VENV/tmp" "$PYTHON" -m pip --disable-pip-version-check --no-input)

# install NAME ARGUMENTS: packages, once.
install() {
    local name="$1" broken
    shift
    # Cut off in the middle of a package, pip takes it for installed; it writes RECORD last.
    for broken in "$VENV"/lib/python*/site-packages/*.dist-info; do
        [[ ! -d "$broken" || -f "$broken/RECORD" ]] || rm -rf "$broken"
    done
    background "$name" "${pip[@]}" install --no-compile "$@"
    await "$name" "installing packages failed"
}

# torch alone, from its own index too: ours or PyTorch's, pip takes the build without CUDA where it finds one. Where this
# fails, torch comes with the other packages.
install_torch() {
    [[ -n "$TORCH_INDEX" ]] || return 0
    local pin
    pin="$(grep -oE '^torch==[0-9.]+' "$STAMPS/first.txt")"
    "${pip[@]}" show -q torch 2>/dev/null && return
    background torch "${pip[@]}" install --no-compile --no-deps --retries 1 --timeout 15 --extra-index-url "$TORCH_INDEX" "$pin"
    finished torch || true
}

# All that decides what upstream/ holds, and what it holds: a sync by hand, for instance --restore, is seen too.
sync_state() {
    local files
    mapfile -t files < <(find recipe/sources upstreams.toml ./*_patches "${RECIPE_UPSTREAM:-upstream}/MANIFEST.json" -type f \
        \( -path 'recipe/*.py' -o -name '*.toml' -o -name '*.patch' -o -name MANIFEST.json \) 2>/dev/null | LC_ALL=C sort)
    hash_of "${files[*]}" "${files[@]}"
}

# look_at_run: what is wrong with the run file and the options that go with it, before minutes are spent. TOML needs a
# package on Python 3.10.
look_at_run() {
    "$PYTHON" -c 'import tomllib' 2>/dev/null || "$PYTHON" -c 'import tomli' 2>/dev/null ||
        install tomli "$(grep -oE '^tomli==[0-9.]+' "$requirements")"
    "$PYTHON" -m recipe launch "${prepare[@]}" --check
}

check_machine
[[ -x "$PYTHON" ]] || find_python >/dev/null
lock_venv
make_venv
rm -rf "$VENV/tmp"
mkdir -p "$STAMPS" "$LOGS" "$VENV/tmp"
cd "$REPO"
requirements="$REPO/requirements-sim.txt"
((${#prepare[@]} == 0)) || look_at_run

sed '/^# --- second part/,$d' "$requirements" >"$STAMPS/first.txt"
base_hash="$(hash_of "$VENV" "$STAMPS/first.txt")"
stack_hash="$(hash_of "$VENV" "$requirements")"
dev_hash="$(hash_of "$VENV" "$REPO/requirements-dev.txt")"
mapfile -t sim_files < <(find npu_sim -type f \( -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.toml' \) \
    -not -path '*/build/*' | LC_ALL=C sort)
sim_hash="$(hash_of "$base_hash ${sim_files[*]}" "${sim_files[@]}")"

if ! fresh base "$base_hash"; then
    say "packages, first part (torch, transformers)"
    install_torch
    install base -r "$STAMPS/first.txt"
    stamp base "$base_hash"
fi
if ! fresh sync "$(sync_state)"; then
    say "upstream sources"
    background sync "$PYTHON" -m recipe sync --profile sim
fi
if ! fresh npu_sim "$sim_hash"; then
    say "compiling the simulated NPU"
    rm -rf "$VENV/wheels"
    MAX_JOBS="${MAX_JOBS:-2}" background npu_sim "${pip[@]}" wheel --no-build-isolation --no-deps \
        --wheel-dir "$VENV/wheels" ./npu_sim
fi
if ((${#prepare[@]})); then
    background prepare "$PYTHON" -m recipe launch "${prepare[@]}" --prepare
fi
if ! fresh stack "$stack_hash"; then
    say "packages, second part (Ray, and what verl and vLLM import)"
    install stack -r "$requirements"
    stamp stack "$stack_hash"
fi
if [[ "$dev" == yes ]] && ! fresh dev "$dev_hash"; then
    say "test tools"
    install dev -r "$REPO/requirements-dev.txt"
    stamp dev "$dev_hash"
fi
await sync "fetching the upstream sources failed"
stamp sync "$(sync_state)"
if [[ -n "${started[npu_sim]:-}" ]]; then
    await npu_sim "compiling the simulated NPU failed"
    background npu_sim-install "${pip[@]}" install --no-deps --force-reinstall "$VENV"/wheels/*.whl
    await npu_sim-install "installing the simulated NPU failed"
    stamp npu_sim "$sim_hash"
fi
if [[ -n "${started[prepare]:-}" ]]; then
    kill -0 "${started[prepare]}" 2>/dev/null && say "waiting for the tiny model"
    await prepare "making the model failed"
fi
say "ready"
