# SPDX-License-Identifier: Apache-2.0
"""What a run file is, and all that follows from it before anything runs."""
