"""What holds for all tests."""

import sys
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests

pd.set_option("compute.use_numexpr", False)  # where it is installed it cannot compare text

torch.set_num_threads(1)  # as in a worker: more threads may change the last bits
