"""What all sections of a study file have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

MOST = 2**31 - 1  # of any whole number


class Section(BaseModel):
    """A part of the study file; unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        if isinstance(value, int) and value > MOST:
            raise ValueError(f"is too large, at most {MOST:,} is allowed")
        return value
