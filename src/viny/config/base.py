"""What all sections of a study file have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the study file; unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
