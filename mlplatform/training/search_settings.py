"""The settings of a search for hyperparameters, checked without TensorFlow and without Optuna."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mlplatform.config import Config, parse_config

Value = bool | int | float | str | None


class Range(Config):
    """Numbers from `low` to `high`, both included; whole ones where both are whole."""

    low: int | float
    high: int | float
    # By the logarithm: as many trials between 0.001 and 0.01 as between 0.01 and 0.1.
    log: bool = False
    # Distance of the numbers that are tried; null for any.
    step: int | float | None = Field(default=None, gt=0)

    @property
    def is_whole(self) -> bool:
        """Its numbers are whole."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("with log, low must be above 0, and there is no step")
        return self


_KEYS = tuple(Range.model_fields)


class SearchSettings(Config):
    """What is tried, and what is the best."""

    # Trainings, at most; 0 for no search.
    trials: int = Field(default=0, ge=0)
    # Hyperparameters to the values that are tried: a list of them, or a range of numbers.
    space: dict[str, Range | Annotated[list[Value], Field(min_length=1)]] = Field(default_factory=dict)
    # The metric of the last epoch that was kept, as Keras reports it, and which value of it is better.
    monitor: str = Field(default="val_accuracy", min_length=1)
    mode: Literal["auto", "max", "min"] = "auto"
    seed: int = Field(default=0, ge=0)

    @field_validator("space", mode="before")
    @classmethod
    def _are_lists_and_ranges(cls, space: Any) -> Any:
        """Say what is wrong with a value in one sentence, and not what each of the two forms lacks."""
        if not isinstance(space, dict):
            return space
        return {name: _list_or_range(name, values) for name, values in space.items()}

    @model_validator(mode="after")
    def _has_a_space(self) -> "SearchSettings":
        if self.trials and not self.space:
            raise ValueError("trials without a space: name the hyperparameters that are tried")
        return self


def _list_or_range(name: str, values: Any) -> Any:
    if isinstance(values, dict):
        try:
            return Range.model_validate(values)
        except ValidationError as error:
            problems = [
                " ".join([*map(str, found["loc"]), found["msg"].removeprefix("Value error, ")])
                for found in error.errors()
            ]
            raise ValueError(f"{name}: {'; '.join(problems)}; a range has {', '.join(_KEYS)}") from None
    if not values or not isinstance(values, list | Range):
        raise ValueError(f"{name}: give a list of values, or a range such as {{low: 1, high: 9}}")
    return values


def check_space(search: SearchSettings, model: Config, *, source: str) -> None:
    """See that a program takes every value of a space.

    Args:
        search: Has the space.
        model: The program's settings.
        source: What errors call the space.

    Raises:
        ConfigError: A hyperparameter is unknown, or a value does not fit.
    """
    for name, values in search.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            parse_config(type(model), {**model.model_dump(), name: value}, source=source)
