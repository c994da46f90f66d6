"""The settings of a table's training, checked without TensorFlow."""

from typing import Annotated, Literal

from pydantic import Field

from mlplatform.config import Config


class TableSettings(Config):
    """The settings of the model; `docs/how-to/train-models.md` explains them."""

    # The column that Transform gives the answer in.
    label: str = Field(min_length=1)
    # classification: a whole number from 0, the class. regression: a number.
    kind: Literal["classification", "regression"] = "classification"
    # Names of the classes in the order of their numbers, where they have names.
    classes: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=2)
    # Columns that the model looks at; null for all that Transform gives.
    columns: list[str] | None = Field(default=None, min_length=1)
    # Whole numbers below this enter as one of so many values; columns with others enter as numbers.
    most_values: int = Field(default=1000, ge=2)
    # Numbers per value of such a column.
    embedding: int = Field(default=8, ge=1)
    # Units of each hidden layer; without any the model is linear.
    hidden_units: list[Annotated[int, Field(ge=1)]] = Field(default=[64, 32])
    dropout: float = Field(default=0.0, ge=0, lt=1)
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    # Epochs without a lower loss on the evaluation splits before the training ends; 0 for never.
    patience: int = Field(default=5, ge=0)
    seed: int = Field(default=0, ge=0)
