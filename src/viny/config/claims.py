"""Claims about a study: which scores are compared, and what is expected of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from viny.config.base import Section

Axis = Literal["pretrain", "intermediate", "downstream", "distance"]
Measure = Literal["miou", "within_image_variance", "across_image_variance", "probe_accuracy", "similarity"]
Value = int | str


class Expected(Section):
    """The range in which an effect is expected; exactly one of above, below and about."""

    above: float | None = Field(None, description="The effect is larger than this.")
    below: float | None = Field(None, description="The effect is smaller than this.")
    about: float | None = Field(None, description="The effect is this, give or take `within`.")
    within: float = Field(1.5, gt=0, description="Half the width of what counts as `about`.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.above, self.below, self.about)) != 1:
            raise ValueError("needs exactly one of above, below and about")
        return self

    @property
    def region(self) -> tuple[float, float]:
        """Lowest and highest effect that agree with the claim."""
        if self.about is not None:
            return self.about - self.within, self.about + self.within
        low = -float("inf") if self.above is None else self.above
        return low, float("inf") if self.below is None else self.below


class Claim(Section):
    """A statement about a study that its results can support or contradict."""

    says: str = Field(min_length=1, max_length=300, description="The claim in one sentence.")
    change: dict[Axis, Annotated[tuple[Value, Value], Strict(False)]] = Field(
        {},
        description="What is compared: an axis with the value that a score is compared with and the value it has, such "
        "as `{pretrain: [0, 5000]}`. Sizes may be `previous`, `each`, `smallest` and `largest`; tasks `none`, `each` "
        "or a kind of task, `classification` or `patches`.",
    )
    bend: dict[Axis, Literal["images", "doublings"]] = Field(
        {},
        description="Instead of `change`: how the gain changes along an axis of sizes, per image or per doubling; "
        "below 0 are diminishing returns.",
    )
    trend: Literal["pretrain", "downstream"] | None = Field(
        None, description="Take the slope of the change along this axis, per doubling, instead of the change."
    )
    follows: dict[Axis, Annotated[tuple[Value, Value], Strict(False)]] = Field(
        {}, description="Take the covariance of the change, over its cells, with this other change."
    )
    at: dict[Axis, Value | Annotated[tuple[Value, ...], Strict(False)]] = Field(
        {}, description="Where: a value or values of axes; `trained` are the pre-training sizes above 0."
    )
    measure: Annotated[tuple[Measure, ...], Strict(False)] = Field(
        ("miou",), min_length=1, description="What is compared: mIoU in percent, or measures of the geometry."
    )
    expect: Expected = Field(description="The range in which the effect is expected, in points or points per doubling.")
    judge: Literal["each", "average"] = Field(
        "each", description="Whether each effect must be as expected, or their average."
    )
    negligible: float | None = Field(
        None, gt=0, description="An effect shown to be smaller than this, either way, is called negligible."
    )
    paper_data: bool = Field(False, description="The claim is about the paper's data sets alone.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.change) + len(self.bend) != 1:
            raise ValueError("needs exactly one axis in `change` or `bend`")
        if len(self.follows) > 1 or (self.follows and (self.bend or self.trend)):
            raise ValueError("`follows` takes one axis, with `change` and without `trend`")
        geometry = self.measure != ("miou",)
        if geometry and (self.follows or (self.judge == "average" and len(self.measure) > 1)):
            raise ValueError("measures of the geometry are averaged one at a time, and take no `follows`")
        if "distance" in {*self.change, *self.at} and self.measure != ("similarity",):
            raise ValueError("`distance` is an axis of the measure similarity alone")
        if "intermediate" in self.bend or "distance" in self.bend:
            raise ValueError("`bend` needs an axis of sizes, pretrain or downstream")
        if self.trend and (self.bend or self.trend in self.change):
            raise ValueError("`trend` takes another axis than the one that changes, and no `bend`")
        return self
