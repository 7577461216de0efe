# SPDX-License-Identifier: Apache-2.0
"""The published way from FP8 to bfloat16, rendered in plain torch: what benchmarks/weights.py compares the cast with.

    python benchmarks/fp8_reference.py IN OUT [FILE ...]

File after file is loaded whole; each scale is repeated to the size of its tensor; the product is taken in float32 and
rounded to bfloat16; the file is saved whole. FILE: only these of IN. Prints the bytes written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BLOCK = 128


def cast(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """weight [M, N] float8_e4m3fn, scale [ceil(M/128), ceil(N/128)] float32 -> bfloat16 [M, N]."""
    rows, columns = weight.shape
    spread = scale.repeat_interleave(BLOCK, dim=0).repeat_interleave(BLOCK, dim=1)
    return (weight.to(torch.float32) * spread[:rows, :columns]).to(torch.bfloat16)


def cast_file(source: Path, target: Path) -> int:
    """Cast one safetensors file, which must hold the scales of its tensors; returns the bytes written."""
    loaded = load_file(source)
    out = {}
    for name, tensor in loaded.items():
        if not name.endswith("_scale_inv"):
            out[name] = cast(tensor, loaded[name + "_scale_inv"]) if tensor.element_size() == 1 else tensor
    save_file(out, target)
    return sum(tensor.nbytes for tensor in out.values())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="HF", help="FP8 checkpoint")
    parser.add_argument("target", type=Path, metavar="OUT", help="a new directory")
    parser.add_argument("names", nargs="*", metavar="FILE", help="its files to cast (default: all)")
    options = parser.parse_args()
    options.target.mkdir()
    files = [options.source / name for name in options.names] or sorted(options.source.glob("*.safetensors"))
    print(sum(cast_file(file, options.target / file.name) for file in files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
