# SPDX-License-Identifier: Apache-2.0
"""From one run file to a supervised run: the model of the file, what is derived from it, and the supervisor."""
