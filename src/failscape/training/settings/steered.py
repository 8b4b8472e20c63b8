"""What trainings of generators are told that a classifier may steer."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from failscape.training.settings.base import TrainingSettings, require_apart, require_ramp

# Of the classifier's say in the loss of a generator. The loss of a VAE is a sum over pixels, some hundred nats: with
# 30, 100 and 300, after 100 steps of `embedded:fashion-vae`, 99, 100 and 100 of 100 shirts were accepted, and 57, 54
# and 50 % of shirts and bags disputed. With 3, 10 and 30, after 100 steps of `embedded:fashion-wgan`, 87, 98 and 98 %
# of 200 bags were accepted, and 25, 10 and 8 % of these disputed; with 1, 45 % of the class with the fewest. What
# serves a class serves a frontier as well, see docs/methods/frontier.md.
_GUIDANCE, _GUIDANCE_OF_SUMS = 10.0, 100.0
# Karras et al. 2018, appendix A.1; in Gulrajani et al. 2017 there is none.
_DRIFT_OF_PROGRESSIVE = 1e-3


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
        require_ramp(self.guidance_from, self.guidance_full)
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
        require_apart(self.oracle, self.classifier)
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
