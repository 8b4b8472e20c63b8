"""What several states of a classifier say of the same fresh images, against labels and a judge."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.explain.method import EIGHT_BITS, SHARED, Result
from failscape.figures import Panel


@dataclass(frozen=True, kw_only=True)
class FreshVerdicts(Result):
    """A result about T states of a classifier, the one before first, and N fresh images that none was trained on.

    Attributes:
        images: fresh images, 8-bit values in [0, 1]. The verification holds what the classifier said of them before
            and, if there is a judge, what that says.
        ids: their names.
        labels: the class that each was given.
        predictions: what the states after the first say of them.
        examples: some of the images that were taught.
        example_labels: the class that each was given.
        labeller: who or what gave the labels.
        stand_in: whether that was a stand-in for a person.
        judge: the name of the other network that judges, "" if there is none.
        protocol: how the images came about.
        test: the test images on which accuracies are measured.
        class_names: K names.
    """

    ids: tuple[str, ...]
    labels: Int[Tensor, " N"]
    predictions: Int[Tensor, "_ N"]
    examples: Float[Tensor, "E C H W"] = field(metadata=EIGHT_BITS)
    example_labels: Int[Tensor, " E"]
    labeller: str
    stand_in: bool
    judge: str
    protocol: str
    test: str
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def verdicts(self) -> Int[Tensor, "T N"]:
        """What each state says of each fresh image."""
        assert self.verification is not None
        return torch.cat([self.verification.prediction[None], self.predictions])

    @property
    def wrong(self) -> Bool[Tensor, "T N"]:
        """Whether it differs from the labels."""
        return self.verdicts != self.labels

    @property
    def judged_wrong(self) -> Bool[Tensor, "T N"] | None:
        """Whether it differs from the judge, if there is one."""
        assert self.verification is not None
        judged = self.verification.oracle_prediction
        return None if judged is None else self.verdicts != judged

    def panels(self, rows: Sequence[int]) -> list[Panel]:
        """Return fresh images with their labels and what the first state took them for."""
        names = self.class_names
        return [
            Panel(
                label=f"{names[int(self.labels[row])]}; before {names[int(self.verdicts[0, row])]}",
                pixels=self.images[row],
            )
            for row in rows
        ]
