"""The R package SoyURT 1.0.0 (CRAN, CC BY 4.0) as one file for the data set soyurt.

    python -m fedsparse.convert.soyurt SOURCE OUT

SOURCE is a folder with the package's three tables as CSV, which R writes like this:

    install.packages("SoyURT")
    dir.create("soyurt-csv")
    for (n in c("pheno", "soil", "weather"))
      write.csv(getExportedValue("SoyURT", n), paste0("soyurt-csv/", n, ".csv"), row.names = FALSE)

OUT is soyurt/soyurt.npz under the folder that FEDSPARSE_DATA names.

Columns that are used, as the package's help pages describe them:
- pheno.csv: year, location, latitude, longitude, altitude, check, maturity_group, G, eBLUE, SE, average_planting_date
  (MM/DD/YY), average_maturity_date (days after planting); a row a variety, maturity group and environment.
- soil.csv: location, Feature, Soil_Grid; a row a variable.
- weather.csv: location, YYYYMMDD, and 19 variables; a row a day, the first of a location and year the day of planting.

An environment is a location in a year; its state stands behind the last "_" of the location. Weather becomes the means
of the first 16 weeks from planting.

What was checked: the columns against those help pages, this program on small tables made up like them, and its output
against what the data set reads. R was not at hand: the lines above were not run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from fedsparse.convert import command
from fedsparse.errors import InputError

VARIABLES = (
    *("T2M", "T2M_MAX", "T2M_MIN", "PRECTOT", "WS2M", "RH2M", "T2MDEW", "ALLSKY_SFC_LW_DWN", "ALLSKY_SFC_SW_DWN"),
    *("n", "VPD", "SPV", "ETP", "PETP", "GDD", "FRUE", "T2M_RANGE", "PTT", "PTR"),
)
SOIL = tuple(f"{name}_5-15cm_mean" for name in ("bdod", "cec", "clay", "nitrogen", "phh2o", "sand", "silt", "soc"))
GROUPS = {"II": 2, "III": 3}
WEEKS = 16
COLUMNS = {
    "pheno": (
        *("year", "location", "latitude", "longitude", "altitude", "check", "maturity_group", "G", "eBLUE", "SE"),
        *("average_planting_date", "average_maturity_date"),
    ),
    "soil": ("location", "Feature", "Soil_Grid"),
    "weather": ("location", "YYYYMMDD", *VARIABLES),
}

TEXTS = {"location", "check", "maturity_group", "G", "average_planting_date", "Feature", "YYYYMMDD"}
OPTIONAL = {"average_planting_date", "average_maturity_date"}


def arrays(source: Path) -> dict[str, np.ndarray]:
    """Everything of the .npz by name: env_* a row an environment (by location and year), row_* a row a yield."""
    pheno, soil, weather = (_table(source, name) for name in COLUMNS)
    envs = pheno.groupby(["location", "year"])
    first = envs.first().reset_index()
    places = sorted(first["location"].unique())
    state = first["location"].str.rpartition("_")[2]
    states, genotypes = sorted(state.unique()), sorted(pheno["G"].unique())
    planted = _dates(first["average_planting_date"], "%m/%d/%y", source / "pheno.csv").dt.day_of_year
    geo = first[["latitude", "longitude", "altitude"]].assign(planted=planted, days=first["average_maturity_date"])
    return {
        "weather": _weeks(source, weather, first),
        "weather_vars": np.array(VARIABLES),
        "soil": _soil(source, soil, first["location"]),
        "soil_vars": np.array(SOIL),
        "env_state": np.searchsorted(states, state).astype(np.uint8),
        "states": np.array(states),
        "env_location": np.searchsorted(places, first["location"]).astype(np.uint8),
        "locations": np.array(places),
        "env_year": first["year"].to_numpy(np.int16),
        "env_geo": geo.to_numpy(np.float32),
        "env_n": envs.size().to_numpy(np.int16),
        "env_yield": envs["eBLUE"].mean().to_numpy(np.float32),
        "row_env": envs.ngroup().to_numpy(np.int16),
        "row_y": pheno["eBLUE"].to_numpy(np.float32),
        "row_se": pheno["SE"].to_numpy(np.float32),
        "row_mg": _groups(source, pheno["maturity_group"]),
        "row_check": (pheno["check"] == "yes").to_numpy(np.uint8),
        "row_genotype": np.searchsorted(genotypes, pheno["G"]).astype(np.int16),
        "genotypes": np.array(genotypes),
    }


def _table(source: Path, name: str) -> pd.DataFrame:
    file = source / f"{name}.csv"
    kinds = {column: str if column in TEXTS else float for column in COLUMNS[name]} | {"year": int}
    try:
        table = pd.read_csv(file, dtype=kinds, usecols=lambda column: column in COLUMNS[name])
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).strip().splitlines()[-1].rstrip(".")
        raise InputError(f"The table {file} cannot be read ({reason}); --help says how R writes it.") from error
    if missing := [column for column in COLUMNS[name] if column not in table]:
        raise InputError(f"The table {file} lacks the column {missing[0]}; --help lists the columns.")
    if table.empty:
        raise InputError(f"The table {file} has no rows.")
    if empty := [column for column in table if column not in OPTIONAL and table[column].isna().any()]:
        raise InputError(f"The column {empty[0]} of {file} has an empty cell: only dates may be missing.")
    return table


def _dates(texts: pd.Series, form: str, where: Path) -> pd.Series:
    """As dates; what is missing stays missing."""
    dates = pd.to_datetime(texts, format=form, errors="coerce")
    if len(wrong := texts[dates.isna() & texts.notna()]):
        raise InputError(f'The column {texts.name} of {where} holds "{wrong.iloc[0]}", which is no date as {form}.')
    return dates


def _groups(source: Path, texts: pd.Series) -> np.ndarray:
    """Maturity groups as numbers."""
    if len(wrong := texts[~texts.isin(GROUPS)]):
        raise InputError(
            f"The table {source / 'pheno.csv'} has the maturity group {wrong.iloc[0]}, allowed are II and III."
        )
    return texts.map(GROUPS).to_numpy(np.uint8)


def _weeks(source: Path, weather: pd.DataFrame, envs: pd.DataFrame) -> np.ndarray:
    """Means of each week from planting: (environments, variables, weeks) float32."""
    day = _dates(weather["YYYYMMDD"].str.replace("/", "-"), "%Y-%m-%d", source / "weather.csv")
    days = weather.assign(day=day, year=day.dt.year).sort_values("day", kind="stable").groupby(["location", "year"])
    found = []
    for key in zip(envs["location"], envs["year"], strict=True):
        rows = days.get_group(key) if key in days.groups else weather[:0]
        if len(rows) < 7 * WEEKS:
            raise InputError(
                f"The table {source / 'weather.csv'} has {len(rows)} days of {key[0]} in {key[1]}, "
                f"{7 * WEEKS} from planting are needed."
            )
        daily = rows[list(VARIABLES)].to_numpy(np.float64)[: 7 * WEEKS]
        found.append(daily.reshape(WEEKS, 7, -1).mean(1).T)
    return np.stack(found).astype(np.float32)


def _soil(source: Path, soil: pd.DataFrame, locations: pd.Series) -> np.ndarray:
    """Of each environment's location: (environments, variables) float32."""
    wide = soil.drop_duplicates(["location", "Feature"]).pivot(index="location", columns="Feature", values="Soil_Grid")
    values = wide.reindex(index=locations, columns=list(SOIL)).to_numpy(np.float32)
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        raise InputError(
            f"The table {source / 'soil.csv'} has no {SOIL[column]} of the location {locations.iloc[row]}."
        )
    return values


if __name__ == "__main__":
    sys.exit(command(__doc__, arrays))
