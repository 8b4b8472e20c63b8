"""What every training is told, and what its settings are checked for. Imports no torch, so `--help` stays quick."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from failscape.errors import ConfigError

# Below, `info` is pydantic's `ValidationInfo`, a protocol that no run-time type check can look into.

Settings = TypeVar("Settings", bound="TrainingSettings")


class TrainingSettings(BaseModel):
    """What every training is told. All lengths of time are counted in images seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="training", description="name of the run folder")
    data: str = Field(default="mnist:train", description="spec of the images to learn from")
    validation: str = Field(
        default="auto",
        validate_default=True,
        description="spec of the images to evaluate on, or none; auto: the test split beside a train split",
    )
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        default=None,
        description="channels, height and width to which encoded images (folders, Cartoon Set, CelebA, Parquet) are "
        "brought; by default they stay as they are",
    )
    images: PositiveInt = Field(default=1_200_000, description="images to see in all, repetitions counted")
    batch: PositiveInt = Field(default=128, description="images a step")
    learning_rate: PositiveFloat = Field(default=1e-3, description="peak of the schedule")
    weight_decay: float = Field(default=1e-2, ge=0, description="decoupled weight decay of AdamW")
    warmup: NonNegativeInt = Field(default=20_000, description="images over which the learning rate rises")
    seed: NonNegativeInt = Field(default=0, description="seeds the first weights, the order and every draw")
    ema_half_life: NonNegativeInt = Field(default=20_000, description="half-life of the weight average, in images")
    log_every: PositiveInt = Field(default=12_800, description="images between two records of the losses")
    evaluate_every: PositiveInt = Field(default=120_000, description="images between two evaluations")
    checkpoint_every: PositiveInt = Field(default=120_000, description="images between two checkpoints")
    half: bool = Field(default=False, description="store the final weights as float16")

    @field_validator("validation")
    @classmethod
    def _resolve_validation(cls, value: str, info: Any) -> str:
        """Replace "auto" by what it stands for, so that the resolved settings say it."""
        data = str(info.data.get("data"))
        if value != "auto":
            return value
        return data.replace(":train", ":test") if ":train" in data else "none"

    @classmethod
    def parse(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
        """Check values that come from outside.

        Raises:
            ConfigError: if a key is unknown or a value of the wrong kind.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "value_error":
                raise ConfigError(str(first["ctx"]["error"])) from error
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"Expected valid training settings, but got {key} = {first['input']!r}: {first['msg']}. "
                f"Known keys are {', '.join(cls.model_fields)}."
            ) from error

    def to_toml(self) -> str:
        """Return the resolved settings as TOML, which knows no word for what is left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def require_apart(oracle: str, *taking_part: str) -> None:
    """Refuse an oracle that takes part in what it is to judge."""
    if oracle != "none" and oracle in taking_part:
        raise ValueError(
            f"Expected an oracle that takes no part in the training, but got {oracle}, which does. Name another."
        )


def require_default(settings: TrainingSettings, names: Sequence[str], why: str) -> None:
    """Refuse settings that would be without effect.

    Those that differ from their defaults: of settings that were written down, all count as set.
    """
    idle = [name for name in names if getattr(settings, name) != type(settings).model_fields[name].default]
    if idle:
        raise ValueError(
            f"Expected only settings that have an effect, but got {', '.join(f'`{name}`' for name in idle)} {why}. "
            "Leave out what has none."
        )


def require_ramp(begins: float, full: float) -> None:
    """Refuse a guidance that is full before it begins."""
    if full < begins:
        raise ValueError(
            f"Expected guidance to be full no sooner than it begins, at {begins:g} of the training, but got {full:g}. "
            "Give `guidance_full`, too; as much makes it a jump."
        )
