"""Calibration: do the classifier's probabilities mean what they say, and what temperature makes them?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import DataError
from failscape.explain.method import SHARED, Method, Result
from failscape.figures import Case, Figure, Finding, Gallery, Panel, Plot, percent, reliability_diagram
from failscape.generators import Generator
from failscape.metrics import Reliability, rate
from failscape.training.temperature import fit_and_measure

_BATCH = 500

_DEFINITIONS = {
    "images": "Images on which calibration was measured: the half that the temperature was not fitted on.",
    "fitted": "Images that the temperature was fitted on: a random half.",
    "temperature": "What the network's logits are to be divided by; more than before makes the classifier less sure.",
    "temperature_before": "What they were divided by before; of the bare network 1.",
    "accuracy": "Share of images that are classified as labelled; no temperature changes it. Interval: Wilson, 95 %.",
    "calibration_error_before": "Expected calibration error (ECE): mean distance, over bins of the confidence weighted "
    "by their images, of accuracy and mean confidence; at the temperature before.",
    "calibration_error_after": "The same at the new temperature.",
    "cross_entropy_before": "Negative log-likelihood of the labels in nats an image, at the temperature before.",
    "cross_entropy_after": "The same at the new temperature.",
    "id": "The image's name in its set.",
    "label": "What the image is labelled.",
    "prediction": "What the classifier says of it.",
    "mistaken": "Whether the classifier, asked again about the 8-bit image, is still wrong.",
    "confidence": "Probability of the prediction, at the temperature before.",
    "calibrated": "The same at the new temperature.",
}


def reliability_plot(before: Reliability, after: Reliability) -> Plot:
    """Return the reliability diagram of a classifier before and after calibration."""
    series = {"before": before, "after": after}
    return Plot(
        name="reliability",
        title="Is it as often right as it is sure?",
        caption="Accuracy against mean confidence, for images put together by their confidence, before and after "
        "calibration, with 95 % Wilson intervals. On the line the classifier keeps its word; below it is too sure. "
        "Underneath, how many images each bin holds, on a logarithmic axis.",
        draw=lambda: reliability_diagram(
            {name: each.confidence for name, each in series.items()},
            {name: each.accuracy for name, each in series.items()},
            {name: (each.low, each.high) for name, each in series.items()},
            {name: each.count for name, each in series.items()},
        ),
    )


@final
@dataclass(frozen=True, kw_only=True)
class CalibrationResult(Result):
    """What `Calibration` found; fields of two rows hold what was before, then what is after.

    Attributes:
        images: mistakes among the measured images, the most confident first, 8-bit values in [0, 1].
        labels: what these are labelled.
        ids: their names.
        temperature: what the network's logits are to be divided by.
        temperature_before: what they were divided by before.
        temperature_given: what they are divided by in the classifier that was given, which verifies the images.
        fitted: images that the temperature was fitted on.
        right: which of the measured images are classified as labelled.
        error: expected calibration errors.
        cross_entropy: negative log-likelihoods, nats an image.
        count: measured images by bins of their confidence.
        confidence: mean confidence in each bin, NaN where it is empty.
        accuracy: share of images in each bin that are right.
        low: lower end of the 95 % interval of the accuracy.
        high: upper end.
        class_names: K names.
    """

    origin = "test"

    labels: Int[Tensor, " N"]
    ids: tuple[str, ...]
    temperature: float
    temperature_before: float
    temperature_given: float
    fitted: int
    right: Bool[Tensor, " M"]
    error: Float[Tensor, " 2"]
    cross_entropy: Float[Tensor, " 2"]
    count: Int[Tensor, "2 B"]
    confidence: Float[Tensor, "2 B"]
    accuracy: Float[Tensor, "2 B"]
    low: Float[Tensor, "2 B"]
    high: Float[Tensor, "2 B"]
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def made_from(self) -> tuple[str, ...]:
        """The images that were given."""
        return self.ids

    @property
    def mistaken(self) -> Bool[Tensor, " N"]:
        """Whether the verified 8-bit images are mistakes, as claimed."""
        assert self.verification is not None
        return self.verification.prediction != self.labels

    @property
    def probs(self) -> Float[Tensor, "N K"]:
        """The probabilities of the images after calibration."""
        return self._probs_at(self.temperature)

    @property
    def probs_before(self) -> Float[Tensor, "N K"]:
        """The probabilities of the images before."""
        return self._probs_at(self.temperature_before)

    def _probs_at(self, temperature: float) -> Float[Tensor, "N K"]:
        assert self.verification is not None
        return (self.verification.probs.log() * (self.temperature_given / temperature)).softmax(dim=1)

    @property
    def reliabilities(self) -> tuple[Reliability, Reliability]:
        """Accuracy by bins of the confidence, before and after."""
        before, after = (
            Reliability(
                count=self.count[i],
                confidence=self.confidence[i],
                accuracy=self.accuracy[i],
                low=self.low[i],
                high=self.high[i],
            )
            for i in range(2)
        )
        return before, after

    @property
    def summary(self) -> dict[str, float]:
        """The temperature, and calibration before and after."""
        accuracy = rate(self.right)
        return {
            "images": float(len(self.right)),
            "fitted": float(self.fitted),
            "temperature": self.temperature,
            "temperature_before": self.temperature_before,
            "calibration_error_before": self.error[0].item(),
            "calibration_error_after": self.error[1].item(),
            "cross_entropy_before": self.cross_entropy[0].item(),
            "cross_entropy_after": self.cross_entropy[1].item(),
            **accuracy.named("accuracy"),
        }

    @property
    def table(self) -> pa.Table:
        """One row a mistake shown."""
        assert self.verification is not None
        prediction = self.verification.prediction
        return pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "label": pa.array([self.class_names[k] for k in self.labels.tolist()], pa.string()),
                "prediction": pa.array([self.class_names[k] for k in prediction.tolist()], pa.string()),
                "mistaken": self.mistaken.numpy(),
                "confidence": self.probs_before.amax(dim=1).numpy(),
                "calibrated": self.probs.amax(dim=1).numpy(),
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """The reliability diagram, and the most confident mistakes."""
        plot = reliability_plot(*self.reliabilities)
        if not self.ids:
            return [plot]
        gallery = Gallery(
            name="cases",
            title="The most confident mistakes",
            caption="Images that the classifier is wrong about although it is sure, also once calibrated, the surest "
            "first. A temperature cannot help these; look for what they have in common, and at their labels.",
            class_names=self.class_names,
            cases=[self._case(row) for row in range(len(self.ids))],
            definitions=_DEFINITIONS,
        )
        return [plot, gallery]

    @property
    def findings(self) -> Sequence[Finding]:
        """Whether the classifier is as often right as it is sure, and the mistakes that it is surest of."""
        accuracy, before = rate(self.right), self.reliabilities[0]
        sure = float((before.count * before.confidence.nan_to_num()).sum() / before.count.sum())
        if sure > accuracy.high:
            judgement = "It is too sure of itself"
        elif sure < accuracy.low:
            judgement = "It is right more often than it believes"
        else:
            judgement = "On the whole it is about as often right as it is sure"
        sentence = (
            f"{judgement}: on average {percent(sure)} sure, and right in {percent(accuracy.value)} of "
            f"{accuracy.n:,} images"
        )
        shown = self.mistaken.nonzero()[:, 0].tolist()[:4]
        if not shown:
            return (Finding(sentence=sentence + "."),)
        panels = []
        for row in shown:
            probs, label = self.probs_before[row], self.class_names[int(self.labels[row])]
            said = f"{self.class_names[int(probs.argmax())]} ({percent(float(probs.max()))})"
            panels.append(Panel(label=f"{label}, taken for {said}", pixels=self.images[row]))
        here = "here is the mistake" if len(shown) == 1 else "here are the mistakes"
        return (Finding(sentence=f"{sentence}; {here} that it is surest of.", panels=panels),)

    def _case(self, row: int) -> Case:
        before, after = self.probs_before[row], self.probs[row]
        label = self.class_names[int(self.labels[row])]
        prediction = self.class_names[int(before.argmax())]
        mistaken = bool(self.mistaken[row])
        return Case(
            id=self.ids[row],
            heading=f"A {label} taken for a {prediction}",
            verdict=f"Wrong, and {before.max():.1%} sure of it; {after.max():.1%} once calibrated."
            if mistaken
            else "Failed: rounded to 8 bits the image is classified as labelled.",
            good=mistaken,
            panels=(Panel(label="image", pixels=self.images[row]),),
            probabilities={"before": before, "after": after},
            numbers={"confidence": f"{before.max():.4f}", "calibrated": f"{after.max():.4f}"},
        )


@final
class Calibration(Method[CalibrationResult]):
    r"""Do the classifier's probabilities mean what they say, and what temperature makes them?

    A temperature $T$ is fitted on a random half of the images, so that $\mathrm{softmax}(z / T)$ makes their
    labels most likely; expected calibration error, negative log-likelihood and accuracy are measured on the other
    half, before and after. Nothing is generated: the generator that every method is called with is not used.

    `y` must be the labels, and the images those that the classifier meets, right and wrong ones alike; a choice of
    mistakes has no meaningful temperature.

    Args:
        bins: equal parts of [0, 1] by which images are put together by their confidence.
        shown: how many of the most confident mistakes to show.
        bare: take for "before" the bare network, at temperature 1, and not the temperature that the classifier has.

    Raises:
        ValueError: if a setting is out of its range.
        DataError: if there are fewer than 4 images.
        ClassifierError: if the classifier's logits do not differ between the classes.

    Example:
        >>> result = Calibration()(classifier, generator, x, y, rng=torch.Generator().manual_seed(0))
        >>> calibrated = classifier.with_temperature(result.temperature)

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    result_type: ClassVar[type[CalibrationResult]] = CalibrationResult

    def __init__(self, *, bins: int = 15, shown: int = 12, bare: bool = False) -> None:
        if bins < 1 or shown < 1:
            raise ValueError(f"Expected `bins` and `shown` to be at least 1, but got {bins} and {shown}.")
        self.bins = bins
        self.shown = shown
        self.bare = bare

    @torch.no_grad()
    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> CalibrationResult:
        """Fit on one half, measure on the other, and find the most confident mistakes there."""
        if len(x) < 4:
            raise DataError(
                f"Expected at least 4 images, 2 to fit a temperature on and 2 to measure it on, but got {len(x)}. Take "
                "some hundreds for a temperature to rely on."
            )
        fitted = torch.zeros(len(x), dtype=torch.bool)
        fitted[torch.randperm(len(x), generator=rng)[: len(x) // 2]] = True
        before = 1.0 if self.bare else classifier.temperature
        given = torch.cat([classifier(batch).cpu() for batch in x.split(_BATCH)])
        logits = given * (classifier.temperature / before)
        fit = fit_and_measure(logits, y, fitted=fitted, bins=self.bins)

        probs = (logits / fit.temperature).softmax(dim=1)
        wrong = (~fitted & (logits.argmax(dim=1) != y)).nonzero().flatten()
        surest = wrong[probs[wrong].amax(dim=1).argsort(descending=True, stable=True)[: self.shown]]
        tables = (fit.before.reliability, fit.after.reliability)
        return CalibrationResult(
            images=x[surest],
            labels=y[surest],
            ids=tuple(ids[row] for row in surest.tolist()),
            temperature=before * fit.temperature,
            temperature_before=before,
            temperature_given=classifier.temperature,
            fitted=fit.fitted,
            right=fit.right,
            error=torch.tensor([fit.before.error, fit.after.error]),
            cross_entropy=torch.tensor([fit.before.cross_entropy, fit.after.cross_entropy]),
            count=torch.stack([each.count for each in tables]),
            confidence=torch.stack([each.confidence for each in tables]),
            accuracy=torch.stack([each.accuracy for each in tables]),
            low=torch.stack([each.low for each in tables]),
            high=torch.stack([each.high for each in tables]),
            class_names=classifier.class_names,
        )
