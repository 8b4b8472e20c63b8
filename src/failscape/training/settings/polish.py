"""What the polishing of a generator is told."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from failscape.training.settings.base import TrainingSettings, require_apart


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
    sparsity: float = Field(
        default=0.0,
        ge=0,
        description="weight of how far the styles move with the score asked for, each in its deviations: the more, the "
        "fewer of them tell it",
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
        if self.matching == self.guidance == self.sparsity == 0:
            raise ValueError(
                "Expected a weight of `matching`, `guidance` or `sparsity`, by which it learns, but all are 0. Raise "
                "one."
            )
        require_apart(self.oracle, self.classifier, *self.matched_by)
        return self
