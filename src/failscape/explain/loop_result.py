"""What rounds of drawing, labelling and retraining changed: mistakes on the same fresh images, and accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.fresh_verdicts import FreshVerdicts, Gains, estimate_bars
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
    "wrong_data_alone": "The same share, by the classifier of the beginning trained as long as in a round on its own "
    "data alone. Where a classifier is unsure any change of it changes its answer, so that this, not the share before, "
    "is what further training by itself amounts to.",
    "wrong_control": "The same share, by the control: the classifier of the beginning trained as long on random "
    "labelled images, as many as in the last round.",
    "controlled": "Labelled images that the control was retrained on.",
    "gain": "Share of wrong images before, less that after the last round. Interval: bootstrap over the images, 95 %.",
    "gain_over_data_alone": "Share of wrong images after training on its own data alone, less that after the last "
    "round.",
    "gain_over_control": "Share of wrong images of the control, less that after the last round.",
    "p_value": "Exact McNemar test: is the classifier as often wrong before as after?",
    "p_value_control": "The same: is the control as often wrong as the classifier after the last round?",
    "judged_before": "Share of fresh images on which classifier and judge differ before; the judge gave no labels.",
    "judged_after": "The same share after the last round.",
    "judged_data_alone": "The same share after training on its own data alone.",
    "judged_control": "The same share of the control.",
    "judged_gain": "Share of images wrong to the judge before, less that after the last round.",
    "judged_gain_over_data_alone": "Share of images wrong to the judge after training on its own data alone, less that "
    "after the last round.",
    "judged_gain_over_control": "Share of images wrong to the judge of the control, less that after the last round.",
    "asked_first": "Share of wrong images among those asked in the first round, by the classifier of that time. "
    "Interval: Wilson, 95 %.",
    "asked_last": "The same of the last round. Each round asks what its own classifier is unsure of, so that this "
    "falls more slowly than the mistakes on the same images, or not at all.",
    "clean_before": "Accuracy on the test images, before.",
    "clean_after": "Accuracy on the test images, after the last round.",
    "clean_data_alone": "Accuracy on the test images after training on its own data alone.",
    "clean_control": "Accuracy on the test images of the control.",
    "clean_change": "Accuracy on the test images, after less before. Interval: bootstrap over the images, 95 %.",
    "corrupted_before": "Accuracy on corrupted test images, the mean over corruptions and severities, before.",
    "corrupted_after": "Accuracy on corrupted test images after the last round.",
    "corrupted_data_alone": "Accuracy on corrupted test images after training on its own data alone.",
    "corrupted_control": "Accuracy on corrupted test images of the control.",
    "corrupted_change": "Accuracy on corrupted test images, after less before. Interval: likewise.",
    "id": "Name of the fresh image.",
    "label": "The class that it was given.",
    "judge": "The class that the judge gives it.",
    "before": "What the classifier takes it for before.",
    "data_alone": "What the one trained on its own data alone takes it for.",
    "control": "What the control takes it for.",
}


@final
@dataclass(frozen=True, kw_only=True)
class LoopResult(FreshVerdicts):
    """What R rounds changed: the states are those before the first round and after each.

    Two more states follow, of the classifier of the beginning trained as long as in a round: on its own data alone,
    and, if there is a control, on random labelled images.

    Attributes:
        clean: which test images each state gets right.
        corrupted: in what share of the corruptions and severities each state gets each corrupted image right.
        controlled: labelled images that the control was retrained on, 0 where there is none.
        labelled: images that it was retrained on in each round, those of earlier rounds among them.
        asked: images with a class among those asked in each round.
        differs: of how many of them the classifier of that time was wrong.
        examples: as many images of each round, one round after the other.
    """

    clean: Bool[Tensor, "T M"]
    corrupted: Float[Tensor, "T L"]
    controlled: int
    labelled: Int[Tensor, " R"]
    asked: Int[Tensor, " R"]
    differs: Int[Tensor, " R"]

    @property
    def rounds(self) -> int:
        """R, the number of rounds."""
        return len(self.labelled)

    @property
    def arms(self) -> Mapping[str, int]:
        """What the rounds are held against: its name to its state."""
        alone = {"data alone": self.rounds + 1}
        return alone | {"control": self.rounds + 2} if self.controlled else alone

    @property
    def gain(self) -> Estimate:
        """By how much the share of wrong images fell over all rounds."""
        return self._fall(self.wrong, 0)

    @property
    def gain_over_data_alone(self) -> Estimate:
        """By how much it is below that after training as long on its own data alone."""
        return self._fall(self.wrong, self.arms["data alone"])

    @property
    def gain_over_control(self) -> Estimate | None:
        """By how much it is below that of the control, if there is one."""
        return self._fall(self.wrong, self.arms["control"]) if self.controlled else None

    @property
    def is_gain_shown(self) -> bool:
        """Whether fewer images are wrong, to the labels and to the judge, than chance and more training explain."""
        return self._gains.is_shown

    @property
    def _gains(self) -> Gains:
        judged = self.judged_wrong
        states = () if judged is None else (0, self.arms["data alone"])
        return Gains(
            over_before=self.gain,
            over_data_alone=self.gain_over_data_alone,
            over_control=self.gain_over_control,
            judged=tuple(self._fall(judged, state) for state in states if judged is not None),
        )

    def _fall(self, wrong: Bool[Tensor, "T N"], state: int) -> Estimate:
        """Return the share that is wrong in a state, less that after the last round."""
        return mean(wrong[state].double() - wrong[self.rounds].double())

    @property
    def summary(self) -> dict[str, float]:
        """Mistakes and accuracies before and after."""
        wrong, judged, last = self.wrong, self.judged_wrong, self.rounds
        summary: dict[str, float] = {
            "rounds": float(self.rounds),
            "labelled": float(self.labelled[-1]),
            "fresh": float(len(self.ids)),
        }
        if self.controlled:
            summary["controlled"] = float(self.controlled)
        for what, share in (("wrong", wrong), ("judged", judged)):
            if share is None:
                continue
            gain = "gain" if what == "wrong" else "judged_gain"
            summary |= rate(share[0]).named(f"{what}_before") | rate(share[last]).named(f"{what}_after")
            summary |= self._fall(share, 0).named(gain)
            for name, state in self.arms.items():
                key = name.replace(" ", "_")
                summary |= rate(share[state]).named(f"{what}_{key}")
                summary |= self._fall(share, state).named(f"{gain}_over_{key}")
        summary["p_value"] = mcnemar(wrong[0], wrong[last])
        if self.controlled:
            summary["p_value_control"] = mcnemar(wrong[self.arms["control"]], wrong[last])
        for name, row in (("asked_first", 0), ("asked_last", -1)):
            summary |= self._asked(row).named(name)
        for name, right in (("clean", self.clean.double()), ("corrupted", self.corrupted.double())):
            summary |= mean(right[0]).named(f"{name}_before") | mean(right[last]).named(f"{name}_after")
            summary |= mean(right[last] - right[0]).named(f"{name}_change")
            for arm, state in self.arms.items():
                summary |= mean(right[state]).named(f"{name}_{arm.replace(' ', '_')}")
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
        states = ["before", *(f"round_{i}" for i in range(1, self.rounds + 1)), *self.arms]
        for state, row in zip(states, self.verdicts.tolist(), strict=True):
            columns[state.replace(" ", "_")] = [names[k] for k in row]
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
                name="arms",
                title="Against training without these labels",
                caption=f"The same fresh images{judged and ', by the labels and by the judge'}. Last round: trained on "
                f"{int(self.labelled[-1]):,} labelled images. Data alone: trained as long without any.{self._control} "
                "Intervals: 95 %, Wilson, over the images; other seeds are not in them.",
                draw=self._draw_arms,
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
    def _control(self) -> str:
        if not self.controlled:
            return ""
        return f" Control: trained as long on {self.controlled:,} labelled images at random."

    @property
    def findings(self) -> Sequence[Finding]:
        """Whether the rounds helped, and what they cost."""
        wrong, last = self.wrong, self.rounds
        after = "after one round" if last == 1 else f"after {last} rounds"
        shares = [percent(rate(row).value) for row in wrong]
        numbers = (
            f"of {wrong.shape[1]:,} fresh images {shares[0]} are wrong before, {shares[last]} {after} with "
            f"{int(self.labelled[-1]):,} labelled images, "
        )
        alone = f"{shares[self.arms['data alone']]} after training on its own data alone"
        # Of the random images fewer may have a class.
        many = "as many" if self.controlled == int(self.labelled[-1]) else f"{self.controlled:,}"
        if self.controlled:
            numbers += f"{shares[self.arms['control']]} after training on {many} random ones, and {alone}"
        else:
            numbers = f"{numbers.removesuffix(', ')} and {alone}; a control on random labelled images was not asked for"
        what = "The round helps" if last == 1 else "The rounds help"
        start = self._gains.said(what, judge=self.judge, others="random images", many=many)
        who = f" Labels by {self.labeller}{', in place of a person' if self.stand_in else ''}."
        mended = (wrong[0] & ~wrong[last]).nonzero()[:, 0].tolist()[:_PANELS]
        clean = [percent(float(right.double().mean())) for right in (self.clean[0], self.clean[last])]
        corrupted = [percent(float(right.mean())) for right in (self.corrupted[0], self.corrupted[last])]
        cost = (
            f"{clean[0]} of clean test images are right before and {clean[1]} after; {corrupted[0]} of corrupted ones "
            f"before and {corrupted[1]} after."
        )
        return (Finding(sentence=f"{start}: {numbers}.{who}", panels=self.panels(mended)), Finding(sentence=cost))

    def _asked(self, row: int) -> Estimate:
        wrong = torch.arange(int(self.asked[row])) < self.differs[row]
        return rate(wrong)

    def _draw_wrong(self) -> Drawing:
        rounds = slice(self.rounds + 1)
        series = {"fresh, to the labels": [rate(row) for row in self.wrong[rounds]]}
        if self.judged_wrong is not None:
            series["fresh, to the judge"] = [rate(row) for row in self.judged_wrong[rounds]]
        nothing = Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
        series["asked"] = [*(self._asked(row) for row in range(self.rounds)), nothing]
        return self._curves(series, "share of images that are wrong")

    def _draw_accuracy(self) -> Drawing:
        kinds = {"clean": self.clean.double(), "corrupted": self.corrupted.double()}
        return self._curves(
            {name: [mean(row) for row in right[: self.rounds + 1]] for name, right in kinds.items()}, "accuracy"
        )

    def _draw_arms(self) -> Drawing:
        groups = {"by the labels": self.wrong}
        if self.judged_wrong is not None:
            groups["by the judge"] = self.judged_wrong
        states = {"before": 0, "last round": self.rounds, **self.arms}
        series = {name: [rate(wrong[state]) for wrong in groups.values()] for name, state in states.items()}
        return estimate_bars(series, list(groups), "share of fresh images that are wrong")

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
