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

# CANN's settings, where it is installed and this shell has not read them. They use variables that may be unset.
cann="${ASCEND_TOOLKIT_HOME:-/usr/local/Ascend/ascend-toolkit}/set_env.sh"
if [[ -z "${ASCEND_TOOLKIT_HOME:-}" && -r "$cann" ]]; then
    set +u
    # shellcheck disable=SC1090
    source "$cann"
    set -u
fi

export PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m recipe node "$@"
