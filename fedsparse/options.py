"""What every plug-in is: a frozen set of options, checked when it is made, each with its own line of description.

    class Fedavg(Strategy):
        density: Share = 1.0
        '''Share of the maskable weights that is kept.'''

The fields are the options of a config's table, the line below a field is its help.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _fits(value: int) -> int:
    """What is counted or seeds fits into 32 bits, with room for a comparison's seeds."""
    if value > 2**31 - 1:
        raise ValueError(f"must be at most {2**31 - 1}")
    return value


Share = Annotated[float, Field(gt=0, le=1)]
"""A share that is never nothing: (0, 1]."""
Fraction = Annotated[float, Field(ge=0, le=1)]
"""A share that may be nothing: [0, 1]."""
Held = Annotated[float, Field(gt=0, lt=1)]
"""A share of a whole of which something must remain: (0, 1)."""
Count = Annotated[int, Field(ge=1), AfterValidator(_fits)]
"""At least one."""
Whole = Annotated[int, Field(ge=0), AfterValidator(_fits)]
"""An integer that may be 0."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number of at least 0."""


class Options(BaseModel):
    """The base of every plug-in: fields are options, unknown ones are refused, nothing changes after it was made."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )
