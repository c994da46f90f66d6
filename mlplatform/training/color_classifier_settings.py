"""The settings of the colour model's training, checked without TensorFlow."""

from typing import Annotated

from pydantic import Field, field_validator

from mlplatform.config import Config

Color = Annotated[str, Field(min_length=1)]


class ColorSettings(Config):
    """The settings of the model; `docs/how-to/colour.md` explains how to choose them."""

    # The feature with a photo's colours, the main one first; up to three count.
    label_feature: str = Field(default="color", min_length=1)
    # The colours to tell apart, two at least; null takes twelve names, multicolour, and each further colour
    # that at least min_photos training photos have.
    colors: list[Color] | None = None
    min_photos: int = Field(default=8, ge=1)
    # Height and width, in pixels, that photos are scaled to.
    image_size: int = Field(default=128, ge=64, le=1024)
    # Share of the target that a photo's further colours get.
    second_color_weight: float = Field(default=0.25, ge=0, le=0.5)
    # Photos of known colours that are drawn and learned from beside the data's own; 0 for none.
    drawn_photos: int = Field(default=1260, ge=0)
    # What draws them: package.module:function of (count, size_px, seed), giving pairs of a JPEG and a colour.
    drawn_by: str = Field(default="mlplatform.demo.photos.colored:colored_photos", pattern=r"^[\w.]+:\w+$")
    # How much a drawn photo counts beside one of the data.
    drawn_weight: float = Field(default=0.1, ge=0)
    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    # Strength of the penalty on large weights, the same for any number of photos.
    weight_penalty: float = Field(default=60.0, ge=0)
    # Confidence below which the model gives no answer of its own.
    min_confidence: float = Field(default=0.6, ge=0, le=1)
    # Numbers of the vectors that the signatures embed, embed_image_bytes and embed_pixels answer: principal
    # components of the colour statistics and features, of length 1. 0: the model has no such signatures.
    embedding_dimensions: int = Field(default=0, ge=0, le=4096)
    seed: int = Field(default=0, ge=0)

    @field_validator("colors")
    @classmethod
    def _are_different(cls, colors: list[str] | None) -> list[str] | None:
        if colors is not None and (len(set(colors)) < len(colors) or len(colors) < 2):
            raise ValueError("name at least two colours, each once")
        return colors
