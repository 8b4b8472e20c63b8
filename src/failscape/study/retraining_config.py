"""What a retraining is told: typed settings, resolved to TOML. Imports no torch, so `--help` stays quick."""

import json
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from failscape.errors import ConfigError
from failscape.study.config import Name, Spec, first_complaint


class RetrainingConfig(BaseModel):
    """A retraining, and how it is measured.

    Attributes:
        name: names the run folder.
        seed: every random draw follows from it.
        classifier: spec of what is retrained.
        generator: spec of what draws images.
        data: spec of what the classifier was trained on.
        test: spec of labelled images that it was not trained on.
        labels: the run folder or database in which people's labels are; none for a stand-in.
        project: which project there, where there are several.
        labeller: spec of the classifier that stands in for a person; none where people labelled.
        judge: spec of another classifier, which gives no labels and judges what came of it.
        labelled: images to retrain on in each replicate; by default 1,000 by a stand-in, and half of those that people
            labelled and that are not kept to be measured on.
        fresh: images drawn to be measured on in each replicate, where there is a stand-in.
        replicates: repetitions with other seeds and other images; of people's labels each keeps another part to be
            measured on.
        one_in: of so many images that the generator draws, the one that the classifier is least sure of is taken.
        sure: a stand-in that is less sure than this says that an image belongs to no class, as a person would.
        images: of each retraining, repetitions counted.
        learning_rate: peak of its schedule.
        share: of each batch, the part that is labelled images.
        augment: shift, turn and scale the labelled images a little.
        corrupted: test images that are corrupted to measure accuracy under corruptions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name = "retrain"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    classifier: Spec
    generator: Spec
    data: Spec
    test: Spec
    labels: Spec | None = None
    project: str | None = None
    labeller: Spec | None = None
    judge: Spec | None = None
    labelled: PositiveInt | None = None
    fresh: PositiveInt = 500
    replicates: Annotated[int, Field(ge=1, le=50)] = 4
    one_in: PositiveInt = 8
    sure: Annotated[float, Field(ge=0, lt=1)] = 0.7
    images: PositiveInt = 60_000
    learning_rate: PositiveFloat = 3e-4
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    augment: bool = True
    corrupted: PositiveInt = 300

    @model_validator(mode="after")
    def _one_source(self) -> "RetrainingConfig":
        if (self.labels is None) == (self.labeller is None):
            raise ValueError(
                "Expected either `labels` of people or a `labeller` that stands in for them, but got "
                f"{'neither' if self.labels is None else 'both'}. Name one of the two."
            )
        if self.judge is not None and self.judge == self.labeller:
            raise ValueError(
                f"Expected a judge other than the labeller {self.labeller}, since none may judge its own labels. Name "
                "another classifier, or none."
            )
        return self

    @classmethod
    def from_mapping(cls, given: dict[str, Any]) -> "RetrainingConfig":
        """Check settings given as a dictionary.

        Raises:
            ConfigError: if a key is unknown or missing, or a value of the wrong kind.
        """
        try:
            return cls.model_validate_json(json.dumps(given, default=str))
        except ValidationError as error:
            raise ConfigError(first_complaint(error, cls, "the retraining")) from error

    def to_toml(self) -> str:
        """Return the settings with every default filled in."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
