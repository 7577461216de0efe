# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe.launch.validation_rows TEST.parquet PROBLEMS SAMPLES OUT.parquet`: the rows of a validation.

Each of the first PROBLEMS rows, SAMPLES times. Asking verl for several answers per row instead gives the same mean, but
verl 0.6.1 then draws thousands of bootstrap samples per row for figures that nobody reads here, which takes longer than
the validation itself.
"""

from __future__ import annotations

import sys
from pathlib import Path


def write_validation_rows(source: Path, problems: int, samples: int, out: Path) -> None:
    """Write the first `problems` rows of `source`, the whole of it `samples` times, to `out`."""
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(source).slice(0, problems)
    pyarrow.parquet.write_table(pyarrow.concat_tables([rows] * samples), out)


def main() -> int:
    source, problems, samples, out = sys.argv[1:5]
    write_validation_rows(Path(source), int(problems), int(samples), Path(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
