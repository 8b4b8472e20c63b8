"""What rounds of drawing, labelling and retraining changed: mistakes on the same fresh images, and accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.fresh_verdicts import FreshVerdicts
from failscape.figures import Figure, Finding, Plot, curves_with_bands, image_grid, percent
from failscape.metrics import Estimate, mcnemar, mean, rate

_PANELS = 6

_DEFINITIONS = {
    "rounds": "Rounds of drawing, labelling and retraining.",
    "labelled": "Labelled images that the last classifier was retrained on, of all rounds.",
    "fresh": "Fresh images on which the share of wrong ones was measured: drawn where the classifier before the first "
    "round is unsure, the same in all rounds, and trained on in none.",
    "wrong_before": "Share of fresh images on which classifier and labels differ, before. Interval: Wilson, 95 %.",
    "wrong_after": "The same share on the same images, after the last round. Interval: Wilson, 95 %.",
    "gain": "Share of wrong images before, less that after the last round. Interval: bootstrap over the images, 95 %.",
    "p_value": "Exact McNemar test: is the classifier as often wrong before as after?",
    "judged_before": "Share of fresh images on which classifier and judge differ before; the judge gave no labels.",
    "judged_after": "The same share after the last round.",
    "judged_gain": "Share of images wrong to the judge before, less that after the last round.",
    "asked_first": "Share of wrong images among those asked in the first round, by the classifier of that time. "
    "Interval: Wilson, 95 %.",
    "asked_last": "The same of the last round. Each round asks what its own classifier is unsure of, so that this "
    "falls more slowly than the mistakes on the same images, or not at all.",
    "clean_before": "Accuracy on the test images, before.",
    "clean_after": "Accuracy on the test images, after the last round.",
    "clean_change": "Accuracy on the test images, after less before. Interval: bootstrap over the images, 95 %.",
    "corrupted_before": "Accuracy on corrupted test images, the mean over corruptions and severities, before.",
    "corrupted_after": "Accuracy on corrupted test images after the last round.",
    "corrupted_change": "Accuracy on corrupted test images, after less before. Interval: likewise.",
    "id": "Name of the fresh image.",
    "label": "The class that it was given.",
    "judge": "The class that the judge gives it.",
    "before": "What the classifier takes it for before.",
}


@final
@dataclass(frozen=True, kw_only=True)
class LoopResult(FreshVerdicts):
    """What R rounds changed: the states are those before the first round and after each.

    Attributes:
        clean: which test images it gets right, before and after each round.
        corrupted: in what share of the corruptions and severities it gets each corrupted image right, likewise.
        labelled: images that it was retrained on in each round, those of earlier rounds among them.
        asked: images with a class among those asked in each round.
        differs: of how many of them the classifier of that time was wrong.
        examples: as many images of each round, one round after the other.
    """

    clean: Bool[Tensor, "T M"]
    corrupted: Float[Tensor, "T L"]
    labelled: Int[Tensor, " R"]
    asked: Int[Tensor, " R"]
    differs: Int[Tensor, " R"]

    @property
    def rounds(self) -> int:
        """R, the number of rounds."""
        return len(self.predictions)

    @property
    def gain(self) -> Estimate:
        """By how much the share of wrong images fell over all rounds."""
        return mean(self.wrong[0].double() - self.wrong[-1].double())

    @property
    def is_gain_shown(self) -> bool:
        """Whether fewer images are wrong, to the labels and to the judge, beyond what chance would do.

        That includes what training longer does by itself, which a loop does not measure and a retraining does.
        """
        judged = self.judged_wrong
        seen = judged is None or mean(judged[0].double() - judged[-1].double()).low > 0
        return self.gain.low > 0 and seen

    @property
    def summary(self) -> dict[str, float]:
        """Mistakes and accuracies before and after."""
        wrong, judged = self.wrong, self.judged_wrong
        summary: dict[str, float] = {
            "rounds": float(self.rounds),
            "labelled": float(self.labelled[-1]),
            "fresh": float(len(self.ids)),
        }
        summary |= rate(wrong[0]).named("wrong_before") | rate(wrong[-1]).named("wrong_after")
        summary |= self.gain.named("gain")
        summary["p_value"] = mcnemar(wrong[0], wrong[-1])
        if judged is not None:
            summary |= rate(judged[0]).named("judged_before") | rate(judged[-1]).named("judged_after")
            summary |= mean(judged[0].double() - judged[-1].double()).named("judged_gain")
        for name, row in (("asked_first", 0), ("asked_last", -1)):
            summary |= self._asked(row).named(name)
        for name, right in (("clean", self.clean.double()), ("corrupted", self.corrupted.double())):
            summary |= mean(right[0]).named(f"{name}_before") | mean(right[-1]).named(f"{name}_after")
            summary |= mean(right[-1] - right[0]).named(f"{name}_change")
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a fresh image."""
        assert self.verification is not None
        names = self.class_names
        judged = self.verification.oracle_prediction
        columns: dict[str, list[str]] = {"id": list(self.ids), "label": [names[k] for k in self.labels.tolist()]}
        if judged is not None:
            columns["judge"] = [names[k] for k in judged.tolist()]
        for index, row in enumerate(self.verdicts.tolist()):
            columns[f"round_{index}" if index else "before"] = [names[k] for k in row]
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        rounds = range(1, self.rounds + 1)
        return _DEFINITIONS | {f"round_{i}": f"What the classifier takes it for after round {i}." for i in rounds}

    @property
    def figures(self) -> Sequence[Figure]:
        """Mistakes and accuracies round after round, and what was taught."""
        judged = f" The judge is {self.judge}, which gave none of the labels." if self.judge else ""
        plots = [
            Plot(
                name="wrong",
                title="Wrong images, round after round",
                caption=f"{self.protocol} Labels by {self.labeller}.{judged} The same fresh images in all rounds; "
                "asked: the images that were labelled in the round that follows, by the classifier of that time. "
                "Bands: 95 %, Wilson.",
                draw=self._draw_wrong,
            ),
            Plot(
                name="accuracy",
                title="What it costs: accuracy on real images",
                caption=f"Accuracy on {self.test}, as they are and under corruptions. Bands: 95 %, bootstrap over the "
                "images.",
                draw=self._draw_accuracy,
            ),
        ]
        if len(self.examples):
            plots.append(
                Plot(
                    name="taught",
                    title="Some of what was taught",
                    caption=f"In each row images of one round, with the class given by {self.labeller}.",
                    draw=self._draw_examples,
                )
            )
        return plots

    @property
    def findings(self) -> Sequence[Finding]:
        """Whether the rounds helped, and what they cost."""
        wrong = self.wrong
        after = "after one round" if self.rounds == 1 else f"after {self.rounds} rounds"
        numbers = (
            f"of {wrong.shape[1]:,} fresh images {percent(rate(wrong[0]).value)} are wrong before and "
            f"{percent(rate(wrong[-1]).value)} {after}, with {int(self.labelled[-1]):,} labelled images"
        )
        if self.gain.high < 0:
            start = "No gain shown, but harm"
        elif not self.gain.low > 0:
            start = "No gain shown"
        elif not self.is_gain_shown:
            start = f"No gain shown beyond the labels themselves, since {self.judge} sees none"
        else:
            start = "Fewer of the same fresh images are wrong"
            numbers += (
                "; whether training longer without them would do as much was not measured: `failscape retrain` "
                "measures that"
            )
        who = f" Labels by {self.labeller}{', in place of a person' if self.stand_in else ''}."
        mended = (wrong[0] & ~wrong[-1]).nonzero()[:, 0].tolist()[:_PANELS]
        clean = [percent(float(right.double().mean())) for right in (self.clean[0], self.clean[-1])]
        corrupted = [percent(float(right.mean())) for right in (self.corrupted[0], self.corrupted[-1])]
        cost = (
            f"{clean[0]} of clean test images are right before and {clean[1]} after; {corrupted[0]} of corrupted ones "
            f"before and {corrupted[1]} after."
        )
        return (Finding(sentence=f"{start}: {numbers}.{who}", panels=self.panels(mended)), Finding(sentence=cost))

    def _asked(self, row: int) -> Estimate:
        wrong = torch.arange(int(self.asked[row])) < self.differs[row]
        return rate(wrong)

    def _draw_wrong(self) -> Drawing:
        series = {"fresh, to the labels": [rate(row) for row in self.wrong]}
        if self.judged_wrong is not None:
            series["fresh, to the judge"] = [rate(row) for row in self.judged_wrong]
        nothing = Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
        series["asked"] = [*(self._asked(row) for row in range(self.rounds)), nothing]
        return self._curves(series, "share of images that are wrong")

    def _draw_accuracy(self) -> Drawing:
        kinds = {"clean": self.clean.double(), "corrupted": self.corrupted.double()}
        return self._curves({name: [mean(row) for row in right] for name, right in kinds.items()}, "accuracy")

    def _draw_examples(self) -> Drawing:
        names = [self.class_names[k] for k in self.example_labels.tolist()]
        rows = self.examples.unflatten(0, (self.rounds, -1))
        return image_grid(rows, row_labels=[f"round {i}" for i in range(1, self.rounds + 1)], cell_labels=names)

    def _curves(self, series: Mapping[str, Sequence[Estimate]], y_label: str) -> Drawing:
        return curves_with_bands(
            torch.cat([torch.zeros(1), self.labelled.float()]),
            {name: torch.tensor([each.value for each in estimates]) for name, estimates in series.items()},
            bands={
                name: (torch.tensor([each.low for each in estimates]), torch.tensor([each.high for each in estimates]))
                for name, estimates in series.items()
            },
            x_label="labelled images",
            y_label=y_label,
        )
