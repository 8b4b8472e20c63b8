"""What a retraining is told: typed settings, resolved to TOML. Imports no torch, so `--help` stays quick."""

import json
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from failscape.errors import ConfigError
from failscape.study.config import Name, Spec, first_complaint

Settings = TypeVar("Settings", bound="LabelSettings")


class LabelSettings(BaseModel):
    """What is retrained, on whose labels, and how: the part that a single retraining and a loop of them share.

    Attributes:
        seed: every random draw follows from it.
        classifier: spec of what is retrained.
        generator: spec of what draws images.
        data: spec of what the classifier was trained on.
        test: spec of labelled images that it was not trained on.
        test_part: "second half" leaves out those on which the classifier's temperature, or settings of the retraining,
            were fitted; of a set sorted by class, the first half of each class.
        labeller: spec of the classifier that stands in for a person; none where people label.
        known: spec of images whose class is known, which are taken in place of what the generator draws; what is
            known stands in for a person.
        judge: spec of another classifier, which gives no labels and judges what came of it.
        fresh: images to be measured on, where there is a stand-in.
        one_in: of so many candidates, the one that the classifier is least sure of is taken.
        sure: a labeller that is less sure than this says that an image belongs to no class, as a person would.
        images: of each retraining, repetitions counted.
        learning_rate: peak of its schedule.
        share: of each batch, the part that is labelled images.
        augment: shift, turn and scale all images a little.
        kept: of the weights at the end, the part that is old.
        corrupted: test images that are corrupted to measure accuracy under corruptions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    classifier: Spec
    generator: Spec
    data: Spec
    test: Spec
    test_part: Literal["all", "second half"] = "all"
    labeller: Spec | None = None
    known: Spec | None = None
    judge: Spec | None = None
    fresh: PositiveInt = 500
    one_in: PositiveInt = 8
    sure: Annotated[float, Field(ge=0, lt=1)] = 0.7
    images: PositiveInt = 60_000
    learning_rate: PositiveFloat = 5e-4
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    augment: bool = False
    kept: Annotated[float, Field(ge=0, lt=1)] = 0.2
    corrupted: PositiveInt = 300

    @model_validator(mode="after")
    def _no_circle(self) -> "LabelSettings":
        if self.judge is not None and self.judge == self.labeller:
            raise ValueError(
                f"Expected a judge other than the labeller {self.labeller}, since none may judge its own labels. Name "
                "another classifier, or none."
            )
        return self

    @classmethod
    def from_mapping(cls: type[Settings], given: dict[str, Any]) -> Settings:
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


class RetrainingConfig(LabelSettings):
    """A retraining, and how it is measured.

    Attributes:
        name: names the run folder.
        labels: the run folder or database in which people's labels are; none for a stand-in.
        project: which project there, where there are several.
        labelled: images to retrain on in each replicate; by default 1,000 by a stand-in, and half of those that people
            labelled and that are not kept to be measured on.
        replicates: repetitions with other seeds and other images; of people's labels each keeps another part to be
            measured on.
    """

    name: Name = "retrain"
    labels: Spec | None = None
    project: str | None = None
    labelled: PositiveInt | None = None
    replicates: Annotated[int, Field(ge=1, le=50)] = 4

    @model_validator(mode="after")
    def _one_source(self) -> "RetrainingConfig":
        given = [key for key in ("labels", "labeller", "known") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                "Expected `labels` of people, or a `labeller` or `known` labels that stand in for them, but got "
                f"{' and '.join(given) or 'none'}. Name one of the three."
            )
        return self


class LoopConfig(LabelSettings):
    """Rounds of drawing, labelling and retraining.

    Attributes:
        name: names the run folder.
        rounds: how many.
        labelled: images to be labelled in each round; some may turn out to have no class.
        labellers: how many people each image is asked of, where people label.
        control: train a control on as many random labelled images; by default where something stands in for people,
            who would have to label as many again.
        steer: before each round the generator is trained further until the classifier of that time gives its images
            this distribution: a class, shares such as "3=0.5,8=0.5", or "uniform"; none leaves it as it is.
        steer_steps: of that training.
        steer_images: real images that it goes on learning from.
    """

    name: Name = "loop"
    rounds: Annotated[int, Field(ge=1, le=50)] = 3
    labelled: PositiveInt = 500
    labellers: PositiveInt = 1
    control: bool | None = None
    steer: str | None = None
    steer_steps: PositiveInt = 200
    steer_images: PositiveInt = 5_000

    @model_validator(mode="after")
    def _steered(self) -> "LoopConfig":
        if self.steer is not None and self.known is not None:
            raise ValueError(
                f"Expected images that the generator draws beside `steer`, but got the known ones of {self.known}. "
                "Leave one of the two out."
            )
        return self
