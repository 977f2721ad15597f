"""The only folder that imports flwr: messages, the strategy adapter, the client app, and the grids that carry them."""

import os

# Flower and Ray report usage and check for updates by default. Off, unless the user has said otherwise.
for _name, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)

from fedsparse.flower.stock import CompressedGrid, Transfer, compress_mod  # noqa: E402  (after the settings above)

__all__ = ["CompressedGrid", "Transfer", "compress_mod"]
