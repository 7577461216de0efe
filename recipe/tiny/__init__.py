# SPDX-License-Identifier: Apache-2.0
"""A tiny model that has something to learn, so that a whole GRPO run fits on a laptop.

``arithmetic`` makes the problems and the demonstrations, ``tokenizer`` trains the byte-level BPE, ``members`` and
``config`` hold the kinds and sizes, ``hugging_face`` their classes, ``warm_start`` turns random weights into a base
model, ``measure`` samples answers and grades them, ``build`` puts the Hugging Face directory together.
"""
