# SPDX-License-Identifier: Apache-2.0
"""Weights: Hugging Face checkpoints into Megatron's distributed format, streamed, without building a model."""
