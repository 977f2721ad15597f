"""Soybean yields of the USDA Northern Region Uniform Soybean Tests, 1989 to 2019 (R package SoyURT, CC BY 4.0).

Krause, Dias, Singh, Beavis, doi:10.1101/2022.04.11.487885. Read from soyurt/soyurt.npz under FEDSPARSE_DATA, which
`python -m fedsparse.convert.soyurt SOURCE OUT` makes of the package's tables. A row is the yield of one variety in one
environment (a site in a year). All rows of an environment have the same weather, soil and place, so rows drawn at
random would be known from training: environments stay whole. The clients are the 12 states and provinces.

Inputs are what is known at harvest, 318 numbers a row: 19 weather variables by 16 weeks from planting, 8 of the soil,
5 of the place, and the maturity group. They are standardised by rounded scales of the inputs of all environments,
written below; no yield had a part in them. Yields are standardised by round figures: 50 and 15 bushels per acre.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fedsparse.data import Data, Dataset, published
from fedsparse.errors import InputError

FILE = Path("soyurt", "soyurt.npz")
SOURCE = "get the tables of the R package SoyURT 1.0.0 (CRAN, CC BY 4.0)"
WEEKS = 16
WEATHER = {
    "T2M": (22, 3.4),
    "T2M_MAX": (27.5, 3.7),
    "T2M_MIN": (16, 3.5),
    "PRECTOT": (3.3, 3),
    "WS2M": (2.7, 0.62),
    "RH2M": (71, 9.5),
    "T2MDEW": (16, 3.5),
    "ALLSKY_SFC_LW_DWN": (377, 19),
    "ALLSKY_SFC_SW_DWN": (21, 3.4),
    "n": (7.8, 1.1),
    "VPD": (0.98, 0.48),
    "SPV": (0.163, 0.029),
    "ETP": (9.5, 1.6),
    "PETP": (-6.1, 3.9),
    "GDD": (14, 3.4),
    "FRUE": (0.63, 0.15),
    "T2M_RANGE": (11.3, 2),
    "PTT": (200, 48),
    "PTR": (0.98, 0.25),
}
"""Mean and standard deviation of each variable, means of a week's days, in the package's units."""
SOIL = {
    "bdod_5-15cm_mean": (152, 6),
    "cec_5-15cm_mean": (222, 35),
    "clay_5-15cm_mean": (316, 55),
    "nitrogen_5-15cm_mean": (250, 100),
    "phh2o_5-15cm_mean": (64, 3.2),
    "sand_5-15cm_mean": (182, 106),
    "silt_5-15cm_mean": (501, 86),
    "soc_5-15cm_mean": (231, 94),
}
PLACE = {
    "latitude": (41.4, 1.5),
    "longitude": (-91, 5.3),
    "altitude": (300, 98),
    "planting": (139, 5.7),
    "maturity": (124, 5),
}
"""Degrees, metres, day of the year, days from planting to maturity; not a number (two of them) becomes the mean."""
MATURITY_GROUP = (2.5, 0.5)
YIELD = (50.0, 15.0)
COLUMNS = ("weather", "soil", "env_geo", "env_state", "env_year", "states", "row_env", "row_mg", "row_y")


class SoyURT(Dataset):
    """Soybean yield in bu/ac (SoyURT): 39,006 rows of weather, soil and place in 591 environments; 12 states."""

    split: Literal["environments", "forecast"] = "environments"
    """What is held out of each state: environments drawn by the seed, or the environments of its last years."""

    def load(self) -> Data:
        """Inputs (39006, 318) float32: weather by variable and week, soil, place, maturity group."""
        arrays = _read()
        env = arrays["row_env"].astype(np.int64)
        inputs = np.concatenate(
            [
                _standard(arrays["weather"], WEATHER).reshape(len(arrays["weather"]), -1),
                _standard(arrays["soil"], SOIL),
                np.nan_to_num(_standard(arrays["env_geo"], PLACE)),
            ],
            axis=1,
            dtype=np.float32,
        )
        group = (arrays["row_mg"].astype(np.float32) - MATURITY_GROUP[0]) / MATURITY_GROUP[1]
        return Data(
            x=torch.from_numpy(np.concatenate([inputs[env], group[:, None]], axis=1)),
            y=torch.from_numpy((arrays["row_y"].astype(np.float32) - YIELD[0]) / YIELD[1]),
            clients=arrays["states"][arrays["env_state"][env]],
            groups=env,
            times=arrays["env_year"][env] if self.split == "forecast" else None,
            unit=YIELD[1],
            zero=YIELD[0],
        )


def _standard(values: np.ndarray, scales: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """Each variable (second axis) less its mean, by its standard deviation."""
    mean, spread = np.array(list(scales.values()), dtype=np.float32).T.reshape(2, 1, -1, *[1] * (values.ndim - 2))
    return (values - mean) / spread


def _read() -> dict[str, np.ndarray]:
    path = published("soyurt", FILE, SOURCE)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in COLUMNS}
        _check(arrays)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition(". ")[0].rstrip(".")  # NumPy goes on to say how to load it unsafely
        raise InputError(
            f"The file {path} is damaged ({reason}): make it anew with `python -m fedsparse.convert.soyurt SOURCE OUT`."
        ) from error
    return arrays


def _check(arrays: dict[str, np.ndarray]) -> None:
    envs, rows = len(arrays["env_state"]), len(arrays["row_env"])
    shapes = {
        "weather": (envs, len(WEATHER), WEEKS),
        "soil": (envs, len(SOIL)),
        "env_geo": (envs, len(PLACE)),
        "env_state": (envs,),
        "env_year": (envs,),
        "states": (len(arrays["states"]),),
        **dict.fromkeys(("row_env", "row_mg", "row_y"), (rows,)),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
    for name in ("weather", "soil", "row_mg", "row_y"):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds what is no finite number")
    for name, of in {"row_env": "env_state", "env_state": "states"}.items():
        if not (arrays[name].min() >= 0 and arrays[name].max() < len(arrays[of])):
            raise ValueError(f"{name} points beyond the end of {of}")
