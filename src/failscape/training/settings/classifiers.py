"""What trainings of classifiers are told."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from failscape.training.settings.base import TrainingSettings


class ClassifierSettings(TrainingSettings):
    """What the training of a classifier is told."""

    kind: Literal["classifier"] = "classifier"
    name: str = Field(default="classifier", description="name of the run folder")
    architecture: Literal["plain-cnn", "residual-cnn", "mlp"] = Field(
        default="plain-cnn", description="reference network; mlp: fully connected, for data of few dimensions"
    )
    width: PositiveInt = Field(default=16, description="channels of the first layer; mlp: width of the hidden layers")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="probability spread over all classes")
    augment: bool = Field(default=False, description="shift, turn and scale the training images a little")
    bf16: bool = Field(default=False, description="train in bfloat16 where that is safe and the hardware has it")
    calibrate: bool = Field(
        default=False,
        description="fit a temperature on the first half of the validation images after the training; calibration "
        "errors are then measured on the other half",
    )

    @field_validator("calibrate")
    @classmethod
    def _check_calibrate(cls, value: bool, info: Any) -> bool:
        """Demand images to calibrate with, before the training instead of after it."""
        if value and info.data.get("validation") == "none":
            raise ValueError(
                "Expected `validation` images beside `calibrate`, whose first half the temperature is fitted on, but "
                "got none. Name some, or leave calibrate out."
            )
        return value

    @field_validator("width")
    @classmethod
    def _check_width(cls, value: int, info: Any) -> int:
        """Demand what the group normalisations of the networks need."""
        multiple = {"plain-cnn": 2, "residual-cnn": 8}.get(str(info.data.get("architecture")), 1)
        if value % multiple:
            raise ValueError(
                f"Expected `width` to be a multiple of {multiple} for this architecture, but got {value}. "
                f"Choose {max(1, round(value / multiple)) * multiple}."
            )
        return value


class FineTuningSettings(TrainingSettings):
    """What the further training of a classifier is told, on its own data and labelled images beside them."""

    kind: Literal["fine-tuning"] = "fine-tuning"
    name: str = Field(default="fine-tuning", description="name of the run folder")
    validation: str = Field(default="none", description="none: what comes of it is measured by the study around it")
    images: PositiveInt = Field(default=60_000, description="images to see in all, repetitions counted")
    warmup: NonNegativeInt = Field(default=3_000, description="images over which the learning rate rises")
    ema_half_life: NonNegativeInt = Field(default=3_000, description="half-life of the weight average, in images")
    checkpoint_every: PositiveInt = Field(default=20_000, description="images between two checkpoints")
    learning_rate: PositiveFloat = Field(default=5e-4, description="peak of the schedule")
    share: float = Field(default=0.1, ge=0, le=1, description="of each batch, the part that is labelled images")
    augment: bool = Field(default=False, description="shift, turn and scale the images a little")
    # Of garments: 0.0 to 0.3 percentage points more accuracy on test images, and at most a twentieth of the gain.
    kept: float = Field(
        default=0.2, ge=0, lt=1, description="of the weights at the end, the part that are the old ones"
    )
