# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts beside it: where things are, and how failures are said. Defines REPO, VENV and functions.

REPO="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${RECIPE_VENV:-$REPO/.venv}"
PYTHON="$VENV/bin/python"
export REPO VENV PYTHON
# Scripts change their directory, and a run has one of its own.
if [[ -n "${RECIPE_UPSTREAM:-}" ]]; then
    RECIPE_UPSTREAM="$(realpath -ms -- "$RECIPE_UPSTREAM")"
    export RECIPE_UPSTREAM
fi
# Every process of a run imports torch, verl and vLLM; where their bytecode may not be kept, each compiles them again.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s\n' "$*"; }

# help_of SCRIPT: what its head says, below the licence.
help_of() { awk 'NR > 2 && /^#/ { sub(/^# ?/, ""); print; next } NR > 2 { exit }' "$1"; }

# One clear line, and out.
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The same for what the user typed.
refuse() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Left over from another project, any of these makes this environment's Python import from, or pip install to, another
# place. Not for scripts/launch.sh: CANN's own settings use PYTHONPATH.
own_python() { unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX; }

# hash_of TEXT FILE...: one hash over a text and the contents of files.
hash_of() {
    local text="$1"
    shift
    { printf '%s\n' "$text"; cat "$@"; } | sha256sum | cut -d' ' -f1
}

# python_version PYTHON: "3.11", or nothing when that does not run.
python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

supported() { [[ "$1" =~ ^3\.(10|11|12)$ ]]; }

# The python to make the environment with: RECIPE_PYTHON, or the first of 3.11, 3.12, 3.10 and python3 that fits.
find_python() {
    local candidate version seen="" candidates=(python3.11 python3.12 python3.10 python3)
    [[ -z "${RECIPE_PYTHON:-}" ]] || candidates=("$RECIPE_PYTHON")
    for candidate in "${candidates[@]}"; do
        version="$(python_version "$candidate")"
        if supported "$version"; then
            command -v "$candidate"
            return
        fi
        [[ -z "$version" ]] || seen="$candidate is $version"
    done
    [[ -z "${RECIPE_PYTHON:-}" ]] ||
        refuse "RECIPE_PYTHON is $RECIPE_PYTHON: ${seen:-that does not run}; name a Python 3.10, 3.11 or 3.12"
    fail "no Python 3.10, 3.11 or 3.12 found (${seen:-no python3 at all}); install one, or name it in RECIPE_PYTHON"
}

# Memory this process may use, in MiB: the machine's, or the container's limit when that is lower.
memory_mib() {
    local total limit
    total="$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null || true)"
    for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
        limit="$(cat "$file" 2>/dev/null || true)"
        if [[ "$limit" =~ ^[0-9]+$ ]] && ((${#limit} < 18)) && ((limit / 1048576 < ${total:-0})); then
            total=$((limit / 1048576))
        fi
    done
    printf '%s\n' "${total:-0}"
}
