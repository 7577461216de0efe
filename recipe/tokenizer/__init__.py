# SPDX-License-Identifier: Apache-2.0
"""tokenizer.json from the files of a tiktoken tokenizer (Moonlight, Kimi-K2), without the code that comes with them."""
