# SPDX-License-Identifier: Apache-2.0
"""From DeepScaleR-schema JSON to the Parquet files that verl's ``RLHFDataset`` reads.

``rows`` reads and checks the JSON, ``templates`` turns a problem into chat messages, ``parquet`` shuffles, splits and
writes, ``samples`` makes the committed sample, ``cli`` is the command line.
"""
