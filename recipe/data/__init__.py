# SPDX-License-Identifier: Apache-2.0
"""From files of problems to the Parquet files that verl's ``RLHFDataset`` reads.

``records`` streams the records of a file, ``formats`` knows where data sets keep problem and answer, ``rows`` checks
them and leaves out what cannot be used, ``truths`` takes answers out of what is around them and says which the reward
cannot match, ``templates`` turns a problem into chat messages, ``chat_template`` says what renders these, ``tokens``
measures them, ``parquet`` shuffles and splits, ``write`` writes, ``summary`` tells what was made, ``samples`` makes
problems, ``cli`` is the command line.
"""
