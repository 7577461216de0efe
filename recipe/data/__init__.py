# SPDX-License-Identifier: Apache-2.0
"""From files of problems to the Parquet files that verl's ``RLHFDataset`` reads.

``records`` streams the records of a file, ``formats`` knows where data sets keep problem and answer, ``rows`` checks
them and leaves out what cannot be used, ``templates`` turns a problem into chat messages, ``tokens`` measures them,
``parquet`` shuffles and splits, ``write`` writes, ``summary`` tells what was made, ``samples`` makes problems, ``cli``
is the command line.
"""
