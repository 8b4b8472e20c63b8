"""What retraining on labelled images changed: mistakes on fresh images, accuracy on clean and corrupted ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.fresh_verdicts import FreshVerdicts, Gains, estimate_bars
from failscape.figures import Case, Figure, Finding, Gallery, Panel, Plot, image_grid, percent
from failscape.metrics import Estimate, mcnemar, mean, mean_by_t, mean_over_both, ratio_of_means

ARMS = ("before", "retrained", "control", "data alone")
"""Classifiers that are compared: as it was, and retrained on chosen images, on random ones, on its own data alone."""

BEFORE, RETRAINED, CONTROL, ALONE = range(len(ARMS))
_SHOWN = 6
_COLUMNS = 8

_DEFINITIONS = {
    "replicates": "Repetitions of the whole experiment, each with a seed, labelled images and fresh images of its own. "
    "Intervals are Student's, 95 %, over them, unless something else is said.",
    "labelled": "Labelled images that a classifier was retrained on, in each replicate; the control on as many.",
    "taught": "Share of the labelled images that the classifier was wrong about before.",
    "fresh": "Fresh images on which the share of wrong ones was measured, of all replicates; none was trained on "
    "in its own.",
    "wrong_before": "Share of fresh images on which the classifier and the labels differ, before.",
    "wrong_retrained": "Share wrong of the same images, by the classifier retrained on the chosen images.",
    "wrong_control": "Share wrong of the same images, by the control: retrained on as many labelled images, but random "
    "ones.",
    "wrong_data_alone": "Share wrong of the same images, by the classifier trained as long on its own data alone. "
    "Where a classifier is unsure any change of it changes its answer, so that this, not the share before, is what "
    "further training by itself amounts to.",
    "gain": "Share of wrong images before, less that of the retrained classifier.",
    "gain_over_control": "Share of wrong images of the control, less that of the retrained classifier.",
    "gain_over_data_alone": "Share of wrong images after training on its own data alone, less that of the retrained.",
    "ratio": "Wrong images of the retrained classifier, as a part of those before; the mean over the replicates.",
    "ratio_control": "The same of the control.",
    "p_value": "Exact McNemar test on all fresh images: is it as often wrong before as retrained?",
    "p_value_control": "The same: is the control as often wrong as the retrained one?",
    "judged_before": "Share of the fresh images on which the classifier and the judge differ, before. The judge is "
    "another network than what gave the labels.",
    "judged_retrained": "The same share of the retrained classifier.",
    "judged_control": "The same share of the control.",
    "judged_data_alone": "The same share after training on its own data alone.",
    "judged_gain": "Share of images wrong to the judge before, less that of the retrained classifier.",
    "judged_gain_over_control": "Share of images wrong to the judge of the control, less that of the retrained one.",
    "judged_gain_over_data_alone": "Share of images wrong to the judge after training on its own data alone, less that "
    "of the retrained classifier.",
    "judged_ratio": "Images wrong to the judge of the retrained classifier, as a part of those before.",
    "agreement": "Share of the fresh images to which judge and labels give the same class. It bounds what can be "
    "reached on both counts at once.",
    "wrong_at_new_frontier": "Share of wrong images among fresh ones of another kind: what the retrained classifier, "
    "not the one before, is unsure of. A classifier is often wrong where it is unsure, however good it is.",
    "clean_before": "Accuracy on the test images, before.",
    "clean_retrained": "Accuracy on the test images of the retrained classifier. Interval: over replicates and images; "
    "over the images where there is one replicate, or replicates share their labelled images.",
    "clean_control": "Accuracy on the test images of the control. Interval: likewise.",
    "clean_data_alone": "Accuracy on the test images after training on its own data alone. Interval: likewise.",
    "clean_change": "Accuracy on the test images, retrained less before. Interval: likewise.",
    "corrupted_before": "Accuracy on corrupted test images, the mean over corruptions and severities, before.",
    "corrupted_retrained": "Accuracy on corrupted test images of the retrained classifier. Interval: likewise.",
    "corrupted_control": "Accuracy on corrupted test images of the control. Interval: likewise.",
    "corrupted_data_alone": "Accuracy on corrupted test images after training on its own data alone.",
    "corrupted_change": "Accuracy on corrupted test images, retrained less before. Interval: likewise.",
    "id": "Name of the fresh image.",
    "replicate": "Which repetition it belongs to.",
    "new_frontier": "Whether it was drawn where the retrained classifier is unsure, instead of the one before.",
    "label": "The class that it was given.",
    "judge": "The class that the judge gives it.",
    "before": "What the classifier takes it for before.",
    "retrained": "What the retrained one of its replicate takes it for.",
    "control": "What the control of its replicate takes it for.",
    "data_alone": "What the one trained on its own data alone takes it for.",
}

# Of one replicate, and of several that train on the same people's labels.
_OVER_IMAGES = {
    "replicates": "Repetitions of the training and the measurement, each with a seed and fresh images of its own. They "
    "train on largely the same labelled images, so that intervals, of 95 %, are bootstrapped over the images, those "
    "that were made from the same together. Other labels and other seeds are not in them.",
    "ratio": "Wrong images of the retrained classifier, as a part of those before, of all replicates together.",
    "p_value": "Exact McNemar test on all fresh images, each taken by itself: is it as often wrong before as after?",
}


@final
@dataclass(frozen=True, kw_only=True)
class RetrainingResult(FreshVerdicts):
    """What retraining changed, in S replicates: the states are `ARMS`, which `predictions` lists but for the first.

    Attributes:
        images: fresh images of all replicates.
        replicate: which replicate each belongs to.
        new_frontier: whether it was drawn where the retrained classifier of its replicate is unsure.
        clean: which test images each of `ARMS` gets right.
        corrupted: in what share of the corruptions and severities each of `ARMS` gets each corrupted image right.
        labelled: images that a classifier was retrained on.
        taught: in what share of the chosen images, and of the control's, the classifier was wrong before.
        examples: some of the chosen images of the first replicate.
        data: what the classifiers were trained on beside the labelled images.
        group: which fresh images were made from the same; None where no two were.
    """

    replicate: Int[Tensor, " N"]
    new_frontier: Bool[Tensor, " N"]
    clean: Bool[Tensor, "4 S M"]
    corrupted: Float[Tensor, "4 S L"]
    labelled: int
    taught: Float[Tensor, "2 S"]
    data: str
    group: Int[Tensor, " N"] | None = None

    @property
    def replicates(self) -> int:
        """S, the number of repetitions."""
        return self.clean.shape[1]

    @cached_property
    def gain(self) -> Estimate:
        """By how much the share of wrong images fell."""
        return self._over_replicates(self._fall(self.wrong, BEFORE))

    @cached_property
    def gain_over_control(self) -> Estimate:
        """By how much it is below that of the control."""
        return self._over_replicates(self._fall(self.wrong, CONTROL))

    @cached_property
    def gain_over_data_alone(self) -> Estimate:
        """By how much it is below that after training as long on its own data alone."""
        return self._over_replicates(self._fall(self.wrong, ALONE))

    @cached_property
    def judged_gain(self) -> Estimate | None:
        """By how much the share of images that are wrong to the judge fell, if there is one."""
        judged = self.judged_wrong
        return None if judged is None else self._over_replicates(self._fall(judged, BEFORE))

    @cached_property
    def judged_gain_over_data_alone(self) -> Estimate | None:
        """By how much that share is below the one after training as long on its own data alone."""
        judged = self.judged_wrong
        return None if judged is None else self._over_replicates(self._fall(judged, ALONE))

    @cached_property
    def ratio(self) -> Estimate:
        """Wrong images of the retrained classifier as a part of those before."""
        return self._ratio(self.wrong, RETRAINED)

    @property
    def is_gain_shown(self) -> bool:
        """Whether fewer images are wrong, to the labels and to the judge, than chance and more training explain."""
        return self._gains.is_shown

    @property
    def _gains(self) -> Gains:
        judged = (self.judged_gain, self.judged_gain_over_data_alone)
        return Gains(
            over_before=self.gain,
            over_data_alone=self.gain_over_data_alone,
            over_control=self.gain_over_control,
            judged=tuple(gain for gain in judged if gain is not None),
        )

    @cached_property
    def summary(self) -> dict[str, float]:
        """Mistakes on fresh images and accuracies, before and after."""
        fresh, wrong, judged = ~self.new_frontier, self.wrong, self.judged_wrong
        summary: dict[str, float] = {
            "replicates": float(self.replicates),
            "labelled": float(self.labelled),
            "taught": self.taught[0].mean().item(),
            "fresh": float(fresh.sum()),
        }
        for arm, name in enumerate(ARMS):
            summary |= self._over_replicates(wrong[arm]).named(f"wrong_{_key(name)}")
        summary |= self.gain.named("gain")
        summary |= self.gain_over_control.named("gain_over_control")
        summary |= self.gain_over_data_alone.named("gain_over_data_alone")
        summary |= self.ratio.named("ratio")
        summary |= self._ratio(wrong, CONTROL).named("ratio_control")
        summary["p_value"] = mcnemar(wrong[BEFORE, fresh], wrong[RETRAINED, fresh])
        summary["p_value_control"] = mcnemar(wrong[CONTROL, fresh], wrong[RETRAINED, fresh])
        if judged is not None:
            for arm, name in enumerate(ARMS):
                summary |= self._over_replicates(judged[arm]).named(f"judged_{_key(name)}")
            summary |= self._over_replicates(self._fall(judged, BEFORE)).named("judged_gain")
            summary |= self._over_replicates(self._fall(judged, CONTROL)).named("judged_gain_over_control")
            summary |= self._over_replicates(self._fall(judged, ALONE)).named("judged_gain_over_data_alone")
            summary |= self._ratio(judged, RETRAINED).named("judged_ratio")
            assert self.verification is not None
            assert self.verification.oracle_prediction is not None
            agree = self.verification.oracle_prediction.eq(self.labels)
            summary |= self._over_replicates(agree).named("agreement")
        if self.new_frontier.any():
            found = self._over_replicates(wrong[RETRAINED], new_frontier=True)
            summary |= found.named("wrong_at_new_frontier")
        for what, right in (("clean", self.clean.double()), ("corrupted", self.corrupted.double())):
            summary |= mean(right[BEFORE, 0]).named(f"{what}_before")
            for arm, name in enumerate(ARMS[1:], start=1):
                summary |= self._accuracy(right[arm]).named(f"{what}_{_key(name)}")
            summary |= self._accuracy(right[RETRAINED] - right[BEFORE]).named(f"{what}_change")
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a fresh image."""
        assert self.verification is not None
        names, verdicts = self.class_names, self.verdicts.tolist()
        judged = self.verification.oracle_prediction
        columns: dict[str, list[object]] = {
            "id": list(self.ids),
            "replicate": self.replicate.tolist(),
            "new_frontier": self.new_frontier.tolist(),
            "label": [names[k] for k in self.labels.tolist()],
        }
        if judged is not None:
            columns["judge"] = [names[k] for k in judged.tolist()]
        for arm, row in zip(ARMS, verdicts, strict=True):
            columns[_key(arm)] = [names[k] for k in row]
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        if not self._apart:
            return _DEFINITIONS | _OVER_IMAGES
        kinds = {"ratio": self.wrong, "ratio_control": self.wrong, "judged_ratio": self.judged_wrong}
        return _DEFINITIONS | {key: _DEFINITIONS[key] + self._flawless(wrong) for key, wrong in kinds.items()}

    @property
    def figures(self) -> Sequence[Figure]:
        """Mistakes and accuracies of all classifiers, what was taught, and what came of single images."""
        judged = f", and {self.judge}, which gave none of the labels, as the judge" if self.judge else ""
        plots = [
            Plot(
                name="wrong",
                title="Wrong on fresh images",
                caption=f"Share of fresh images on which each classifier differs from the labels by {self.labeller}"
                f"{judged}. {self.protocol} No replicate trained on its own. Control: retrained on {self.labelled:,} "
                f"{'random' if self.stand_in else 'other'} labelled images instead of chosen ones. Data alone: trained "
                f"as long without any. {self._whiskers}",
                draw=self._draw_wrong,
            ),
            Plot(
                name="accuracy",
                title="What it costs: accuracy on real images",
                caption=f"Accuracy on {self.test}, as they are and under corruptions. {self._whiskers}",
                draw=self._draw_accuracy,
            ),
        ]
        if len(self.examples):
            plots.append(
                Plot(
                    name="taught",
                    title="Some of what was taught",
                    caption=f"Chosen images of the first replicate, with the class given by {self.labeller}.",
                    draw=self._draw_examples,
                )
            )
        gallery = Gallery(
            name="cases",
            title="What became of single images",
            caption="Fresh images of the first replicate: first such that were wrong and are right, then such that "
            "still are wrong, then such that have become wrong.",
            class_names=self.class_names,
            cases=[self._case(row) for row in self._telling()],
            definitions=_DEFINITIONS,
        )
        return [*plots, gallery] if gallery.cases else plots

    @property
    def findings(self) -> Sequence[Finding]:
        """Whether retraining helps, and what it costs."""
        mended = self._rows(was=True, becomes=False)[:_SHOWN]
        return (
            Finding(sentence=self._gain_sentence(), panels=self.panels(mended)),
            Finding(sentence=self._cost_sentence()),
        )

    def _gain_sentence(self) -> str:
        shares = [self._over_replicates(self.wrong[arm]).value for arm in range(len(ARMS))]
        # People label no second set, so that their control is what was not chosen of the first.
        others = "random images" if self.stand_in else "other labelled images"
        numbers = (
            f"of fresh generated images {percent(shares[BEFORE])} are wrong before, {percent(shares[RETRAINED])} after "
            f"retraining on {self.labelled:,} labelled ones, {percent(shares[CONTROL])} after retraining on as many "
            f"{others}, and {percent(shares[ALONE])} after training on its own data alone"
        )
        start = self._gains.said("Retraining helps", judge=self.judge, others=others)
        who = f" Labels by {self.labeller}{', in place of a person' if self.stand_in else ''}."
        if self.judged_wrong is not None:
            values = [self._over_replicates(self.judged_wrong[arm]).value for arm in (BEFORE, RETRAINED)]
            who += f" To {self.judge}, which gave none, {percent(values[0])} were wrong and {percent(values[1])} are."
        return f"{start}: {numbers}.{who}"

    def _cost_sentence(self) -> str:
        parts = []
        for what, right in (("clean", self.clean.double()), ("corrupted", self.corrupted.double())):
            change = self._accuracy(right[RETRAINED] - right[BEFORE])
            if math.isnan(change.low):
                judgement = "whether they differ is not known"
            elif change.low > 0:
                judgement = "higher"
            elif change.high < 0:
                judgement = "lower"
            else:
                judgement = "no difference shown"
            parts.append(
                f"{percent(float(right[BEFORE].mean()))} of {what} test images are right before and "
                f"{percent(float(right[RETRAINED].mean()))} after ({judgement})"
            )
        return f"{parts[0][0].upper()}{parts[0][1:]}; {parts[1]}."

    def _over_replicates(self, values: Tensor, *, new_frontier: bool = False) -> Estimate:
        """Return the mean over the replicates, of each one's own images; where they are not apart, over all images."""
        values, chosen = values.double(), self.new_frontier == new_frontier
        if not self._apart:
            return self._over_images(values, torch.ones_like(values), chosen)
        means = [values[chosen & (self.replicate == s)].mean() for s in range(self.replicates)]
        found = mean_by_t(torch.stack(means))
        low, high = (max(-1.0, found.low), min(1.0, found.high))
        return Estimate(value=found.value, low=low, high=high, n=found.n)

    @property
    def _apart(self) -> bool:
        """Whether there are replicates that depend on each other in nothing: of people's labels all are made of one."""
        return self.stand_in and self.replicates > 1

    def _over_images(
        self, above: Float[Tensor, " N"], below: Float[Tensor, " N"], chosen: Bool[Tensor, " N"]
    ) -> Estimate:
        """Return the ratio of two sums over images, with its bootstrap interval; what was made from the same is one."""
        group = torch.arange(len(above)) if self.group is None else self.group
        names, number = group[chosen].unique(return_inverse=True)
        sums = (torch.zeros(len(names)).double().index_add_(0, number, each[chosen]) for each in (above, below))
        return replace(ratio_of_means(*sums), n=int(chosen.sum()))

    def _accuracy(self, right: Float[Tensor, "S M"]) -> Estimate:
        """Return the mean over replicates and test images; where replicates are not apart, over the images."""
        # Of a single image there is no interval.
        return mean_over_both(right) if self._apart or right.shape[1] < 2 else mean(right.mean(dim=0))

    def _fall(self, wrong: Bool[Tensor, "4 N"], arm: int) -> Float[Tensor, " N"]:
        return wrong[arm].double() - wrong[RETRAINED].double()

    def _ratio(self, wrong: Bool[Tensor, "4 N"], arm: int) -> Estimate:
        """Return wrong images after as a part of those before, the mean over the replicates if they are apart."""
        if not self._apart:
            return self._over_images(wrong[arm].double(), wrong[BEFORE].double(), ~self.new_frontier)
        ratios = torch.stack([wrong[arm, rows].sum() / wrong[BEFORE, rows].sum() for rows in self._own]).double()
        return mean_by_t(ratios)

    @property
    def _own(self) -> list[Bool[Tensor, " N"]]:
        """The fresh images of each replicate."""
        return [~self.new_frontier & (self.replicate == s) for s in range(self.replicates)]

    def _flawless(self, wrong: Bool[Tensor, "4 N"] | None) -> str:
        """Say how many replicates a ratio leaves out, if it does: those in which nothing was wrong before."""
        count = 0 if wrong is None else sum(not wrong[BEFORE, rows].any() for rows in self._own)
        if count == 0:
            return ""
        return f" Left out: {count} of the {self.replicates} replicates, in which nothing was wrong before."

    @property
    def _whiskers(self) -> str:
        if self.replicates == 1:
            return "Intervals: 95 %, over the images; more replicates would tell what the seed makes of it."
        if not self._apart:
            return (
                f"Intervals: 95 %, over the images of all {self.replicates} replicates, which train on largely the "
                "same labelled images."
            )
        return f"Intervals: 95 %, over {self.replicates} replicates."

    def _rows(self, *, was: bool, becomes: bool) -> list[int]:
        wrong = self.wrong
        rows = (wrong[BEFORE] == was) & (wrong[RETRAINED] == becomes) & ~self.new_frontier & (self.replicate == 0)
        return rows.nonzero()[:, 0].tolist()

    def _telling(self) -> list[int]:
        kinds = [(True, False), (True, True), (False, True)]
        return [row for was, becomes in kinds for row in self._rows(was=was, becomes=becomes)[:_SHOWN]]

    def _case(self, row: int) -> Case:
        assert self.verification is not None
        label = self.class_names[int(self.labels[row])]
        said = {arm: self.class_names[int(k)] for arm, k in zip(ARMS, self.verdicts[:, row], strict=True)}
        good = said["retrained"] == label
        if good:
            verdict = f"Mended: taken for {said['before']} before, and for {label} now."
        elif said["before"] == label:
            verdict = f"Lost: right before, and taken for {said['retrained']} now."
        else:
            verdict = f"Still wrong: taken for {said['before']} before, and for {said['retrained']} now."
        probabilities = {"before": self.verification.probs[row]}
        if self.verification.oracle_probs is not None:
            probabilities["judge"] = self.verification.oracle_probs[row]
        return Case(
            id=self.ids[row],
            heading=f"Labelled {label}",
            verdict=verdict,
            good=good,
            panels=(Panel(label="image", pixels=self.images[row]),),
            probabilities=probabilities,
            numbers={"control": said["control"], "data_alone": said["data alone"]},
        )

    def _draw_wrong(self) -> Drawing:
        groups = {"by the labels": self.wrong}
        if self.judged_wrong is not None:
            groups["by the judge"] = self.judged_wrong
        series = {
            name: [self._over_replicates(wrong[arm]) for wrong in groups.values()] for arm, name in enumerate(ARMS)
        }
        return estimate_bars(series, list(groups), "share of fresh images that are wrong")

    def _draw_accuracy(self) -> Drawing:
        kinds = (self.clean.double(), self.corrupted.double())
        series = {
            name: [mean(right[BEFORE, 0]) if arm == BEFORE else self._accuracy(right[arm]) for right in kinds]
            for arm, name in enumerate(ARMS)
        }
        return estimate_bars(series, ["clean", "corrupted"], "accuracy on test images")

    def _draw_examples(self) -> Drawing:
        count = len(self.examples) // _COLUMNS * _COLUMNS or len(self.examples)
        columns = min(_COLUMNS, count)
        return image_grid(
            self.examples[:count].unflatten(0, (-1, columns)),
            cell_labels=[self.class_names[k] for k in self.example_labels[:count].tolist()],
        )


def _key(arm: str) -> str:
    return arm.replace(" ", "_")
