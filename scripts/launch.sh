#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One node's part in a run. The same command on every node: the one that has the head's address leads.
# usage: scripts/launch.sh RUN.toml [--head ADDRESS] [--worker] [--interface NAME] ... (--help lists all; docs/LAUNCH.md)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# In the NPU container the packages are the system's Python's, and there is no virtual environment.
[[ -x "$PYTHON" ]] || PYTHON="$(command -v python3 || true)"
[[ -n "$PYTHON" ]] || fail "no python3 found; run scripts/setup.sh first, or start this in the container"

# CANN's settings and those of its acceleration library, where they are installed and this shell has not read them. Both
# use variables that may be unset.
if [[ -z "${ASCEND_TOOLKIT_HOME:-}" ]]; then
    for file in /usr/local/Ascend/ascend-toolkit/set_env.sh /usr/local/Ascend/nnal/atb/set_env.sh; do
        [[ -r "$file" ]] || continue
        set +u
        # shellcheck disable=SC1090
        source "$file"
        set -u
    done
fi

export PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m recipe node "$@"
