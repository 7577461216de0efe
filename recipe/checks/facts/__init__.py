# SPDX-License-Identifier: Apache-2.0
"""What checks look at: a run file and what follows from it, the files it names, this machine, its runs, and a Ray."""
