# SPDX-License-Identifier: Apache-2.0
"""Settings of verl that a run file passes on as they are: its section `[verl]`, and `-- KEY=VALUE ...` of a command."""

from recipe.runfile.passed.given import SECTION, bare, flattened, merged, parsed, taken_over

__all__ = ["SECTION", "bare", "flattened", "merged", "parsed", "taken_over"]
