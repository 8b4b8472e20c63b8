"""What several states of a classifier say of the same fresh images, against labels and a judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.method import EIGHT_BITS, SHARED, Result
from failscape.figures import Panel, rate_bars
from failscape.metrics import Estimate


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


@dataclass(frozen=True, kw_only=True)
class Gains:
    """By how much fewer images are wrong than without the labelled ones, in each way of being without them.

    Attributes:
        over_before: than by the classifier before.
        over_data_alone: than after training as long on its own data alone.
        over_control: than of the control, trained on other labelled images; None where there is none.
        judged: to the judge, than before and than after training on the data alone; none where nobody judges.
    """

    over_before: Estimate
    over_data_alone: Estimate
    over_control: Estimate | None
    judged: tuple[Estimate, ...] = ()

    @property
    def judge_sees(self) -> bool:
        """Whether the judge, if there is one, sees a gain."""
        return all(gain.low > 0 for gain in self.judged)

    @property
    def is_shown(self) -> bool:
        """Whether fewer images are wrong, to the labels and to the judge, than chance and more training explain.

        Fresh images are those that the classifier before is unsure of, so that any other one is wrong on fewer of
        them: the share before alone shows nothing.
        """
        return self.over_before.low > 0 and self.over_data_alone.low > 0 and self.judge_sees

    def said(self, what: str, *, judge: str, others: str, many: str = "as many") -> str:
        """Say how far the gain is shown, as the beginning of a sentence.

        Args:
            what: that helps, if it does.
            judge: its name.
            others: images that the control was trained on.
            many: how many these are.
        """
        if self.over_before.high < 0:
            return "No gain shown, but harm"
        if not self.over_before.low > 0:
            return "No gain shown"
        if not self.over_data_alone.low > 0:
            return "No gain shown beyond that of further training"
        if not self.judge_sees:
            return f"No gain shown beyond the labels themselves, since {judge} sees none"
        if self.over_control is None:
            return what
        if not self.over_control.low > 0:
            return f"{what}, but no gain over {others} is shown"
        return f"{what}, more than on {many} {others}"


def estimate_bars(series: Mapping[str, Sequence[Estimate]], groups: Sequence[str], y_label: str) -> Drawing:
    """Draw rates as bars with their intervals, one bar a series in each group."""
    return rate_bars(
        {name: [each.value for each in estimates] for name, estimates in series.items()},
        {name: [(each.low, each.high) for each in estimates] for name, estimates in series.items()},
        groups=groups,
        y_label=y_label,
    )
