# SPDX-License-Identifier: Apache-2.0
"""What a run file is, and all that follows from it before anything runs.

`config.load` reads one, `schema` has its keys, and `derive.derive_run` is the one door to what follows: the other
modules are its parts.
"""
