# SPDX-License-Identifier: Apache-2.0
"""Our changes to Megatron-core 0.12.1, one mirror file for each upstream module (see recipe.overlay).

Most of them exist for machines where neither Transformer Engine nor MindSpeed is installed; those are declared with
`when=plain_megatron` (`megatron_patches.environment`) and stay out of the way everywhere else.
"""
