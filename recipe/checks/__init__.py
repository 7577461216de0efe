# SPDX-License-Identifier: Apache-2.0
"""The catalogue of checks, for the commands `preflight` and `doctor`.

`declaration` says what a check is, `catalogue/` holds them, one module for each subject, and `facts/` what they look
at. `report` runs them; `page` writes docs/PREFLIGHT.md. A new check is a declaration in a module of `catalogue/`, and
a new module there is found because it lies there.
"""
