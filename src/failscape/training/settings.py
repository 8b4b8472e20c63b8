"""What a training is told: typed settings, resolved to TOML. Imports no torch, so `--help` stays quick."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

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
    model_validator,
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


def _require_apart(oracle: str, *taking_part: str) -> None:
    """Refuse an oracle that takes part in what it is to judge."""
    if oracle != "none" and oracle in taking_part:
        raise ValueError(
            f"Expected an oracle that takes no part in the training, but got {oracle}, which does. Name another."
        )


def _require_default(settings: TrainingSettings, names: Sequence[str], why: str) -> None:
    """Refuse settings that would be without effect.

    Those that differ from their defaults: of settings that were written down, all count as set.
    """
    idle = [name for name in names if getattr(settings, name) != type(settings).model_fields[name].default]
    if idle:
        raise ValueError(
            f"Expected only settings that have an effect, but got {', '.join(f'`{name}`' for name in idle)} {why}. "
            "Leave out what has none."
        )


# Of the classifier's say in the loss of a generator. The loss of a VAE is a sum over pixels, some hundred nats: with
# 30, 100 and 300, after 100 steps of `embedded:fashion-vae`, 99, 100 and 100 of 100 shirts were accepted, and 57, 54
# and 50 % of shirts and bags disputed. With 3, 10 and 30, after 100 steps of `embedded:fashion-wgan`, 87, 98 and 98 %
# of 200 bags were accepted, and 25, 10 and 8 % of these disputed; with 1, 45 % of the class with the fewest. What
# serves a class serves a frontier as well, see docs/methods/frontier.md.
_GUIDANCE, _GUIDANCE_OF_SUMS = 10.0, 100.0
# Karras et al. 2018, appendix A.1; in Gulrajani et al. 2017 there is none.
_DRIFT_OF_PROGRESSIVE = 1e-3


def _require_ramp(begins: float, full: float) -> None:
    """Refuse a guidance that is full before it begins."""
    if full < begins:
        raise ValueError(
            f"Expected guidance to be full no sooner than it begins, at {begins:g} of the training, but got {full:g}. "
            "Give `guidance_full`, too; as much makes it a jump."
        )


class GuidedSettings(TrainingSettings):
    """What the training of a generator is told that a classifier may steer toward a target distribution."""

    classifier: str = Field(default="none", description="spec of the classifier that steers the generator, or none")
    target: str = Field(
        default="none",
        validate_default=True,
        description="what its verdict on generated images is to be: a class, shares such as 3=0.7,8=0.3, or uniform",
    )
    guidance: float = Field(default=_GUIDANCE, ge=0, description="weight of the classifier's say")
    guidance_from: float = Field(default=0.0, ge=0, le=1, description="part of the training at which it begins")
    guidance_full: float = Field(default=0.2, ge=0, le=1, description="part of the training at which it is full")
    bf16: bool = Field(
        default=True, description="train in bfloat16 where that is safe and the hardware has it; false: in float32"
    )

    @field_validator("target")
    @classmethod
    def _check_target(cls, value: str, info: Any) -> str:
        if (value == "none") != (info.data.get("classifier") == "none"):
            raise ValueError(
                "Expected a classifier and a target beside it, or neither, but got one alone. Name both, such as "
                "--classifier embedded:mnist-clean --target 3=0.5,8=0.5."
            )
        return value

    @model_validator(mode="after")
    def _check_ramp(self) -> "GuidedSettings":
        _require_ramp(self.guidance_from, self.guidance_full)
        return self


class VAESettings(GuidedSettings):
    """What the training of a variational autoencoder is told."""

    kind: Literal["vae"] = "vae"
    name: str = Field(default="vae", description="name of the run folder")
    guidance: float = Field(default=_GUIDANCE_OF_SUMS, ge=0, description="weight of the classifier's say")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay of AdamW")
    latent_dim: PositiveInt = Field(default=10, description="length of a latent")
    hidden: tuple[PositiveInt, ...] = Field(
        default=(512, 256),
        min_length=1,
        description="widths of the encoder's layers; the decoder's in reverse",
    )
    kl_warmup: NonNegativeInt = Field(
        default=0, description="images over which the weight of the divergence rises from 0 to 1"
    )


class ConvolutionalSettings(GuidedSettings):
    """What the trainings of all generators of convolutions without styles are told."""

    oracle: str = Field(
        default="none", description="spec of a classifier whose features measure the distance at evaluations, or none"
    )
    batch: PositiveInt = Field(default=64, description="images a step")
    learning_rate: PositiveFloat = Field(default=2e-3, description="of all networks, until the decay")
    weight_decay: float = Field(default=0.0, ge=0, le=0, description="equalised layers know none")
    warmup: int = Field(default=0, ge=0, le=0, description="equalised layers need none")
    decay_from: float = Field(default=0.5, ge=0, le=1, description="part of the training after which the rate falls")
    channels: tuple[PositiveInt, ...] = Field(
        default=(96, 48, 24), min_length=1, description="feature maps a resolution, the smallest first"
    )
    latent_dim: PositiveInt = Field(default=64, description="length of a latent")

    @model_validator(mode="after")
    def _check_oracle(self) -> "ConvolutionalSettings":
        _require_apart(self.oracle, self.classifier)
        return self


class WGANSettings(ConvolutionalSettings):
    """What the training of a generator against a Wasserstein critic is told."""

    kind: Literal["wgan"] = "wgan"
    name: str = Field(default="wgan", description="name of the run folder")
    family: Literal["wgan", "progressive"] = Field(
        default="wgan", description="progressive: grow from the smallest resolution to the largest"
    )
    critic_steps: PositiveInt = Field(default=5, description="steps of the critic to one of the generator")
    penalty: float = Field(default=10.0, ge=0, description="weight of the gradient penalty")
    drift: float | None = Field(
        default=None,
        ge=0,
        validate_default=True,
        description="weight of the critic's mean squared score of real images, which keeps scores from drifting; by "
        "default none of it, and 0.001 for progressive",
    )
    grow_until: float = Field(
        default=0.5, ge=0, le=1, description="progressive: part of the training at which it is whole"
    )
    encoder_from: float = Field(
        default=0.8, ge=0, le=1, description="part of the training after which the encoder is trained beside it"
    )

    @field_validator("drift")
    @classmethod
    def _resolve_drift(cls, value: float | None, info: Any) -> float:
        """Replace the default by that of the family, so that the resolved settings say it."""
        if value is not None:
            return value
        return _DRIFT_OF_PROGRESSIVE if info.data.get("family") == "progressive" else 0.0


class VAEGANSettings(ConvolutionalSettings):
    """What the training of an autoencoder in a discriminator's feature space is told."""

    kind: Literal["vae-gan"] = "vae-gan"
    name: str = Field(default="vae-gan", description="name of the run folder")
    # Equalised layers learn a fraction of a rate; at 2e-3 an autoencoder of stripes was no better after 200 steps than
    # their mean, at 1e-2 its error was a fifth of that.
    learning_rate: PositiveFloat = Field(default=5e-3, description="of all networks, until the decay")
    # On cartoon faces with pixels at 2, features at 1 and the game at 0.1 every sample was the same face after 64,000
    # images, and nothing was reconstructed; with these the faces were plain, see `recipes/avatars-vae-gan.toml`.
    divergence: float = Field(default=2.0, ge=0, description="weight of the divergence from the prior, nats a pixel")
    features: float = Field(default=0.5, ge=0, description="weight of the distance in the discriminator's features")
    pixels: float = Field(default=30.0, ge=0, description="weight of the mean squared difference of pixels")
    adversarial: float = Field(default=0.01, ge=0, description="weight of the game in the decoder's loss")
    r1: float = Field(default=0.05, ge=0, description="weight of the gradient penalty on real images")
    penalty_every: PositiveInt = Field(default=16, description="steps between two penalties, which are scaled up by it")


class IntroVAESettings(ConvolutionalSettings):
    """What the training of an introspective variational autoencoder is told."""

    kind: Literal["intro-vae"] = "intro-vae"
    name: str = Field(default="intro-vae", description="name of the run folder")
    guidance: float = Field(default=_GUIDANCE_OF_SUMS, ge=0, description="weight of the classifier's say")
    learning_rate: PositiveFloat = Field(default=1e-2, description="of both networks, until the decay")
    margin: PositiveFloat = Field(
        default=60.0, description="divergence, in nats, up to which the encoder pushes generated images from the prior"
    )
    adversarial: float = Field(default=0.25, ge=0, description="weight of the divergences of generated images")
    reconstruction: float = Field(
        default=16.0, gt=0, description="weight of half the squared error, summed over pixels"
    )


class GANSettings(TrainingSettings):
    """What the training of a generator by an adversarial game is told."""

    kind: Literal["gan"] = "gan"
    name: str = Field(default="gan", description="name of the run folder")
    data: str = Field(default="mnist:train+half-corrupted", description="spec of the images to learn from")
    classifier: str = Field(
        default="embedded:mnist-corrupted",
        description="spec of the classifier whose verdicts are the condition, or none",
    )
    target: str = Field(
        default="none",
        description="what its verdict on generated images is to be, in place of a condition: a class, shares such as "
        "3=0.7,8=0.3, or uniform; or none",
    )
    oracle: str = Field(
        default="none",
        description="spec of a classifier trained apart, which judges at each evaluation and never guides; or none",
    )
    images: PositiveInt = Field(default=2_000_000, description="images to see in all, repetitions counted")
    batch: PositiveInt = Field(default=64, description="images a step")
    learning_rate: PositiveFloat = Field(default=2.5e-3, description="of both networks, until the decay")
    weight_decay: float = Field(default=0.0, ge=0, le=0, description="equalised layers know none")
    warmup: int = Field(default=0, ge=0, le=0, description="equalised layers need none")
    decay_from: float = Field(default=0.5, ge=0, le=1, description="part of the training after which the rate falls")
    evaluate_every: PositiveInt = Field(default=200_000, description="images between two evaluations")
    checkpoint_every: PositiveInt = Field(default=100_000, description="images between two checkpoints")
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda, or cuda:N")
    bf16: bool = Field(
        default=True, description="train in bfloat16 where that is safe and the hardware has it; false: in float32"
    )

    family: Literal["stylegan2", "mlp"] = Field(default="stylegan2", description="family of the generator")
    channels: tuple[PositiveInt, ...] = Field(
        default=(96, 48, 24), min_length=1, description="stylegan2: feature maps a resolution, the smallest first"
    )
    discriminator_channels: tuple[PositiveInt, ...] = Field(
        default=(), description="stylegan2: the same of discriminator and encoder; none: as the generator's"
    )
    hidden: PositiveInt = Field(default=128, description="mlp: width of the hidden layers")
    latent_dim: PositiveInt = Field(default=64, description="length of a latent")
    style_dim: PositiveInt = Field(default=128, description="stylegan2: length of an intermediate latent")

    score: Literal["confidence", "true-class", "entropy", "margin", "vector"] = Field(
        default="confidence", description="what is asked for beside the class; vector: the whole distribution"
    )
    embedding: Literal["fourier", "scalar"] = Field(
        default="fourier", description="how the score enters; scalar and no projection is the paper's baseline"
    )
    calibrated: bool = Field(
        default=True, description="take the classifier's confidence with its temperature; false: the bare softmax"
    )
    even_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="part of the images, and so of the requests, drawn evenly over class and score",
    )
    loss: Literal["logistic", "relativistic"] = Field(default="logistic", description="of the adversarial game")
    # On the moons recall was 0.26 at 0.1 and 0.95 at 0.001. On digits 0.1, with guidance begun early, ended at 0.30,
    # and 0.02, with guidance begun late, at 0.79; these and other changes were not separated.
    r1: float = Field(default=0.02, ge=0, description="weight of the gradient penalty on real images")
    r2: float = Field(default=0.0, ge=0, description="weight of the gradient penalty on generated images")
    penalty_every: PositiveInt = Field(default=16, description="steps between two penalties, which are scaled up by it")
    perceive: bool = Field(
        default=False, description="stylegan2: show the discriminator what the classifier sees in an image"
    )
    guidance: float = Field(default=0.5, ge=0, description="weight of the frozen classifier's say on the condition")
    # Late, so that digits take shape before they are bound; see `r1`.
    guidance_from: float = Field(default=0.4, ge=0, le=1, description="part of the training at which guidance begins")
    guidance_full: float = Field(default=0.6, ge=0, le=1, description="part of the training at which it is full")
    # Weak guidance for as long as much is learned, stronger when little else changes any more.
    late_guidance: float = Field(default=0.0, ge=0, description="by how much the weight rises further toward the end")
    late_guidance_from: float = Field(default=0.7, ge=0, le=1, description="part of the training at which that begins")
    start: str = Field(
        default="none",
        description="run folder of a training of the same networks, whose last ones it begins with; or none",
    )
    generator_from: float = Field(
        default=0.0, ge=0, le=1, description="part of the training before which the discriminator learns alone"
    )
    augment: Literal["none", "adaptive"] = Field(
        default="none", description="adaptive: change the images the discriminator sees as much as its overfitting asks"
    )
    encoder_from: float = Field(
        default=0.87, ge=0, le=1, description="part of the training after which the encoder is trained beside it"
    )

    @field_validator("perceive")
    @classmethod
    def _check_perceive(cls, value: bool, info: Any) -> bool:
        if value and (info.data.get("family") != "stylegan2" or info.data.get("classifier") == "none"):
            raise ValueError(
                "Expected a stylegan2 and a classifier beside `perceive`, which shows its discriminator what the "
                "classifier sees, but got another family, or none. Leave perceive out."
            )
        return value

    @model_validator(mode="after")
    def _check_target(self) -> "GANSettings":
        if self.target == "none":
            return self
        if self.classifier == "none" or self.guidance == 0:
            raise ValueError(
                "Expected a `classifier` and a weight of `guidance` beside a `target`, but one of them is missing. "
                "Name both, or leave the target out."
            )
        if self.late_guidance > 0 or self.perceive:
            raise ValueError(
                "Expected neither `late_guidance` nor `perceive` beside a `target`: both are about a condition, which "
                "a generator that is steered does not have. Leave them out."
            )
        _require_default(
            self, ("score", "embedding", "even_share"), "beside a `target`, which takes the place of a condition"
        )
        return self

    @model_validator(mode="after")
    def _check_family(self) -> "GANSettings":
        if self.family == "mlp":
            _require_default(
                self,
                ("channels", "discriminator_channels", "style_dim", "encoder_from"),
                "beside the family mlp, which has no convolutions, styles or encoder",
            )
        return self

    @model_validator(mode="after")
    def _check_roles(self) -> "GANSettings":
        _require_apart(self.oracle, self.classifier)
        _require_ramp(self.guidance_from, self.guidance_full)
        return self


class PolishSettings(TrainingSettings):
    """What the polishing of a trained generator is told."""

    kind: Literal["polish"] = "polish"
    name: str = Field(default="polish", description="name of the run folder")
    start: str = Field(
        default="embedded:mnist-stylegan2",
        description="spec of the generator to begin with: a stylegan2, conditioned on what a classifier says",
    )
    data: str = Field(default="mnist:train+half-corrupted", description="spec of the images that it was trained on")
    classifier: str = Field(
        default="embedded:mnist-corrupted", description="spec of the classifier whose verdicts are the condition"
    )
    matched_by: tuple[str, ...] = Field(
        default=(),
        description="specs of classifiers in whose features it is to be like real images; by default the classifier",
    )
    oracle: str = Field(
        default="none",
        description="spec of a classifier trained apart, which judges at each evaluation and never guides; or none",
    )
    calibrated: bool = Field(
        default=True, description="take the classifier's confidence with its temperature; false: the bare softmax"
    )
    images: PositiveInt = Field(default=250_000, description="images to see in all, repetitions counted")
    batch: PositiveInt = Field(default=256, description="images a step")
    learning_rate: PositiveFloat = Field(default=5e-4, description="peak of the schedule")
    weight_decay: float = Field(default=0.0, ge=0, le=0, description="equalised layers know none")
    warmup: NonNegativeInt = Field(default=12_800, description="images over which the learning rate rises")
    matching: float = Field(
        default=40.0,
        ge=0,
        description="weight of how far mean features of generated images are, class by class, from those of real ones",
    )
    spread: float = Field(
        default=0.2, ge=0, description="beside 1 of the means, weight of the same of the features' covariances"
    )
    guidance: float = Field(default=0.03, ge=0, description="weight of the classifier's say on the condition")
    guided: PositiveInt = Field(
        default=64, description="images a step, beside the others, that it is about: evenly over classes and scores"
    )
    anchor: float = Field(
        default=1.0, ge=0, description="weight of the mean squared difference of a pixel from what it drew before"
    )
    encoder_from: float = Field(
        default=0.6, ge=0, le=1, description="part of the training after which the encoder is trained beside it"
    )
    evaluate_every: PositiveInt = Field(default=50_000, description="images between two evaluations")
    checkpoint_every: PositiveInt = Field(default=50_000, description="images between two checkpoints")
    bf16: bool = Field(
        default=True, description="train in bfloat16 where that is safe and the hardware has it; false: in float32"
    )

    @model_validator(mode="after")
    def _check_roles(self) -> "PolishSettings":
        if self.matching == 0 and self.guidance == 0:
            raise ValueError(
                "Expected a weight of `matching` or `guidance`, by which it learns, but both are 0. Raise one."
            )
        _require_apart(self.oracle, self.classifier, *self.matched_by)
        return self


AnySettings = (
    ClassifierSettings
    | FineTuningSettings
    | GANSettings
    | IntroVAESettings
    | PolishSettings
    | VAEGANSettings
    | VAESettings
    | WGANSettings
)

_KINDS: dict[str, type[AnySettings]] = {
    "classifier": ClassifierSettings,
    "fine-tuning": FineTuningSettings,
    "gan": GANSettings,
    "intro-vae": IntroVAESettings,
    "polish": PolishSettings,
    "vae": VAESettings,
    "vae-gan": VAEGANSettings,
    "wgan": WGANSettings,
}


def read_settings(source: Path) -> AnySettings:
    """Read resolved settings, such as the `train.toml` of a run folder.

    Raises:
        ConfigError: if the file is missing, not TOML, of an unknown kind, or holds an unknown key.
    """
    try:
        values = tomllib.loads(source.read_text())
    except OSError as error:
        raise ConfigError(
            f"Expected readable settings in {source}, but got: {error.strerror}. Check the path."
        ) from error
    except ValueError as error:
        raise ConfigError(f"Expected TOML in {source}, but got: {error}. Correct the file.") from error
    kind = values.get("kind")
    if kind not in _KINDS:
        raise ConfigError(f"Expected kind = one of {', '.join(_KINDS)} in {source}, but got {kind!r}.")
    return _KINDS[kind].parse(values)
