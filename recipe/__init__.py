# SPDX-License-Identifier: Apache-2.0
"""The recipe's own tools; `python -m recipe` is their command line."""
