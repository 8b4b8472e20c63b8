"""Corruption table: how often is a classifier still right when the images are corrupted, the way that cameras do?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from failscape.explain.comparison import require_same_task, told_apart
from failscape.explain.method import SHARED, Method, Result, to_8_bits
from failscape.figures import Figure, Finding, Panel, Plot, heat_tables, image_grid, percent
from failscape.generators import Generator
from failscape.metrics import Estimate, mean, rate

UNCORRUPTED = "uncorrupted"
# In the order of the slides of "Finding the failure conditions of an image classifier".
_SLIDES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "contrast",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
)
# Defined for grey and for RGB images alone.
_JPEG = "jpeg_compression"
_JPEG_CHANNELS = (1, 3)
_WORDS = {
    UNCORRUPTED: "no corruption",
    "gaussian_noise": "Gaussian noise",
    "shot_noise": "shot noise",
    "impulse_noise": "impulse noise",
    "contrast": "loss of contrast",
    "jpeg_compression": "JPEG compression",
    "speckle_noise": "speckle noise",
    "gaussian_blur": "blur",
}
_LEVELS = len(SEVERITIES)
# Values of the images that are corrupted and classified at once.
_VALUES = 2**22
# Of a finding: severities that are shown, and pictures on which two classifiers differ.
_SHOWN_SEVERITIES = (1, 3, 5)
_SHOWN_DIFFERENCES = 3

_DEFINITIONS = {
    "images": "Images that were corrupted in each of the ways; all classifiers saw the very same pixels.",
    "clean": "Accuracy on the images as they are. Interval: Wilson, 95 %.",
    "corrupted": "Accuracy on corrupted images, the mean over corruptions and severities. Interval: bootstrap over the "
    "images, 95 %.",
    "worst": "Accuracy under the corruption and severity where it is lowest. Interval: Wilson, 95 %.",
    "id": "Classifier, corruption and severity.",
    "classifier": "Which classifier.",
    "corruption": "Which corruption, as Hendrycks and Dietterich define it; on images of 8 bits.",
    "severity": "From 1 (slight) to 5 (severe); 0 is uncorrupted.",
    "accuracy": "Accuracy under it. Interval: Wilson, 95 %.",
    "accuracy_low": "Accuracy, lower end of the interval.",
    "accuracy_high": "Accuracy, upper end of the interval.",
    "right": "Images that are classified as labelled.",
}


@final
@dataclass(frozen=True, kw_only=True)
class CorruptionTableResult(Result):
    """What `CorruptionTable` found: what M classifiers, the explained one first, made of J images in N ways.

    The ways are: uncorrupted, then each corruption at severities 1 to 5.

    Attributes:
        images: one image in each of the ways, 8-bit values in [0, 1].
        label: what that is labelled.
        shown: its name.
        verdicts: what each classifier takes it for.
        right: which of the images each classifier gets right in each of the ways.
        corruptions: their names.
        left_out: names of those that images of so many channels cannot have.
        classifiers: theirs.
        class_names: K names.
        ids: classifier, corruption and severity of each row of the table.
    """

    origin = "test"

    label: int
    shown: str
    verdicts: Int[Tensor, "M N"]
    right: Bool[Tensor, "M N J"]
    corruptions: tuple[str, ...]
    left_out: tuple[str, ...]
    classifiers: tuple[str, ...]
    class_names: tuple[str, ...] = field(metadata=SHARED)
    ids: tuple[str, ...]

    @property
    def made_from(self) -> tuple[str, ...]:
        """The one image that is shown in all ways."""
        return (self.shown,) * len(self.images)

    @property
    def accuracy(self) -> Float[Tensor, "M N"]:
        """Share of images that each classifier gets right in each of the ways."""
        return self.right.double().mean(dim=2)

    @property
    def corrupted(self) -> Float[Tensor, "M J"]:
        """In what share of the corruptions and severities each classifier gets each image right."""
        return self.right[:, 1:].double().mean(dim=1)

    def gain(self, other: int) -> Estimate:
        """Return by how much another classifier is more often right than the first on the same corrupted images."""
        corrupted = self.corrupted
        return mean(corrupted[other] - corrupted[0])

    @property
    def summary(self) -> dict[str, float]:
        """Accuracy as it is, corrupted, and at its worst; of the other classifiers, and what they gain."""
        accuracy, corrupted = self.accuracy, self.corrupted
        worst = 1 + int(accuracy[0, 1:].argmin())
        summary = {"images": float(self.right.shape[2])}
        summary |= rate(self.right[0, 0]).named("clean")
        summary |= mean(corrupted[0]).named("corrupted")
        summary |= rate(self.right[0, worst]).named("worst")
        for i, name in enumerate(self.classifiers[1:], start=1):
            summary |= rate(self.right[i, 0]).named(f"clean of {name}")
            summary |= mean(corrupted[i]).named(f"corrupted of {name}")
            summary |= self.gain(i).named(f"gain of {name}")
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a classifier, corruption and severity."""
        names = (UNCORRUPTED, *(name for name in self.corruptions for _ in SEVERITIES))
        severities = (0, *(severity for _ in self.corruptions for severity in SEVERITIES))
        estimates = [rate(self.right[c, r]) for c in range(len(self.classifiers)) for r in range(len(names))]
        return pa.table(
            {
                "id": list(self.ids),
                "classifier": [name for name in self.classifiers for _ in names],
                "corruption": list(names) * len(self.classifiers),
                "severity": list(severities) * len(self.classifiers),
                "accuracy": [each.value for each in estimates],
                "accuracy_low": [each.low for each in estimates],
                "accuracy_high": [each.high for each in estimates],
                "right": self.right.sum(dim=2).flatten().tolist(),
                "images": [each.n for each in estimates],
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        own = self.classifiers[0]
        of_others = {}
        for name in self.classifiers[1:]:
            of_others[f"clean of {name}"] = f"Accuracy of {name} on the images as they are. Interval: Wilson, 95 %."
            of_others[f"corrupted of {name}"] = (
                f"Accuracy of {name} on the same corrupted images, the mean over corruptions and severities. Interval: "
                "bootstrap over the images, 95 %."
            )
            of_others[f"gain of {name}"] = (
                f"Accuracy on corrupted images, of {name} minus that of {own}. Interval: bootstrap over the images, "
                "95 %; where it excludes zero the two differ."
            )
        return _DEFINITIONS | of_others

    @property
    def figures(self) -> Sequence[Figure]:
        """The tables, and one image in all ways."""
        label = self.class_names[self.label]
        return [
            Plot(
                name="table",
                title="Accuracy under each corruption",
                caption=f"Percent of {self.right.shape[2]:,} images classified as labelled, by corruption and "
                f"severity, the darker the worse. The intervals are in the table below.{self._left_out}",
                draw=self._draw_table,
            ),
            Plot(
                name="images",
                title="One image under each corruption",
                caption=f"A {label}, the image {self.shown}: of those that {self.classifiers[0]} gets right "
                "uncorrupted, and loses at the last severity of the worst corruption if there are any such, the one "
                "that fares most as the average image does. Above each picture stands "
                "how sure the classifier is of what it says; a name in brackets is what it says where that is wrong.",
                draw=self._draw_images,
            ),
        ]

    @property
    def findings(self) -> Sequence[Finding]:
        """The corruption that hurts most, and whether another classifier stands more."""
        worst, compared = self._worst(), [self._compared(i) for i in range(1, len(self.classifiers))]
        if len(compared) == 1:
            # Said at once: of several findings of a step the later may not be among those that lead.
            worst = replace(worst, sentence=f"{worst.sentence} {compared.pop().sentence}")
        return [worst, *compared]

    def _worst(self) -> Finding:
        right = _by_corruption(self.right[0])
        order = right.mean(dim=1).argsort().tolist()
        first = order[0]
        name = _words(self.corruptions[first])
        ways = [0, *(1 + first * _LEVELS + severity - 1 for severity in _SHOWN_SEVERITIES)]
        clean, slight, _, severe = (percent(float(self.accuracy[0, way])) for way in ways)
        start = f"it is right in {clean} of {right.shape[1]:,} images as they are,"
        ending = f"in {slight} at severity 1 and in {severe} at severity 5."
        whom = self.classifiers[0] if len(self.classifiers) > 1 else "it"
        if mean(self.right[0, 0].double() - right[first]).low <= 0:
            sentence = (
                f"No corruption was seen to make {whom} fail more often; {start} with {name}, the worst, {ending}"
            )
        elif len(order) > 1 and mean(right[order[1]] - right[first]).low <= 0:
            second = _words(self.corruptions[order[1]])
            sentence = f"{_capital(name)} and {second} hurt {whom} most; {start} with {name} {ending}"
        else:
            sentence = f"{_capital(name)} hurts {whom}{' most' * (len(order) > 1)}: {start} {ending}"
        labels = ["uncorrupted", *(f"severity {severity}" for severity in _SHOWN_SEVERITIES)]
        panels = [
            Panel(label=f"{label}: {self._says(way)}", pixels=self.images[way])
            for label, way in zip(labels, ways, strict=True)
        ]
        return Finding(sentence=sentence, panels=panels)

    def _compared(self, other: int) -> Finding:
        own, name = self.classifiers[0], self.classifiers[other]
        shares = [percent(float(share)) for share in self.corrupted.mean(dim=1)]
        gain = self.gain(other)
        sentence = (
            f"Of the corrupted pictures {name} gets {shares[other]} right and {own} {shares[0]} of the same ones; "
        )
        if gain.low > 0 or gain.high < 0:
            better = name if gain.low > 0 else own
            low, high = sorted((abs(gain.low), abs(gain.high)))
            sentence += f"{better} is better by {100 * low:.1f} to {100 * high:.1f} percentage points."
        else:
            sentence += f"which is better {self.right.shape[2]:,} images do not tell."
        theirs = self.verdicts[other] == self.label
        differ = (theirs != (self._own_verdicts == self.label)).nonzero()[:, 0]
        shown = differ[torch.linspace(0, len(differ) - 1, min(_SHOWN_DIFFERENCES, len(differ))).long()].tolist()
        panels = []
        for way in shown:
            said = [self.class_names[int(k[way])] for k in (self._own_verdicts, self.verdicts[other])]
            label = f"{self._way(way)}: {said[0]} by {own}, {said[1]} by {name}"
            panels.append(Panel(label=label, pixels=self.images[way]))
        return Finding(sentence=sentence, panels=panels)

    @property
    def _left_out(self) -> str:
        """Say in a sentence which corruptions are missing; empty if none is."""
        if not self.left_out:
            return ""
        listed = " and ".join(_words(name) for name in self.left_out)
        channels = self.images.shape[1]
        return f" Left out: {listed}, which is defined for images of 1 or 3 channels, and these have {channels}."

    @property
    def _own_verdicts(self) -> Int[Tensor, " N"]:
        assert self.verification is not None
        return self.verification.prediction

    def _says(self, way: int) -> str:
        assert self.verification is not None
        probs = self.verification.probs[way]
        return f"{self.class_names[int(probs.argmax())]} ({percent(float(probs.max()))})"

    def _way(self, way: int) -> str:
        if way == 0:
            return UNCORRUPTED
        name, level = divmod(way - 1, _LEVELS)
        return f"{_words(self.corruptions[name])} {SEVERITIES[level]}"

    def _draw_table(self) -> Drawing:
        rates = {}
        for name, accuracy in zip(self.classifiers, self.accuracy, strict=True):
            rates[name] = torch.cat([accuracy[:1].expand(1, _LEVELS), accuracy[1:].view(-1, _LEVELS)])
        return heat_tables(
            rates,
            row_labels=[_words(name) for name in (UNCORRUPTED, *self.corruptions)],
            column_labels=[str(severity) for severity in SEVERITIES],
            x_label="severity",
        )

    def _draw_images(self) -> Drawing:
        assert self.verification is not None
        rows = torch.cat(
            [torch.zeros(len(self.corruptions), 1), torch.arange(1, len(self.images)).view(-1, _LEVELS)], 1
        )
        ways = rows.long()
        labels = []
        for way in ways.flatten().tolist():
            sure = f"{float(self.verification.probs[way].max()):.2f}"
            said = int(self._own_verdicts[way])
            labels.append(sure if said == self.label else f"[{self.class_names[said]}] {sure}")
        columns = ways.shape[1]
        headings = [UNCORRUPTED, *(f"severity {severity}" for severity in SEVERITIES)]
        labels[:columns] = [f"{heading}\n{label}" for heading, label in zip(headings, labels[:columns], strict=True)]
        return image_grid(
            self.images[ways],
            row_labels=[_words(name).replace(" ", "\n") for name in self.corruptions],
            cell_labels=labels,
        )


@final
class CorruptionTable(Method[CorruptionTableResult]):
    """How often is a classifier still right when the images are corrupted?

    Every image is corrupted in seven ways at five severities, rounded to 8 bits, and classified, by the classifier that
    is explained and by others beside it, all on the same pixels. Nothing is generated: the generator that every method
    is called with is not used.

    `y` must be the labels, and the images those that the classifier meets, right and wrong ones alike; of a choice of
    mistakes the table says nothing.

    Args:
        others: classifiers to compare with, of the same images and classes.
        corruptions: which, as `failscape.data.corrupt` names them, in the order of the table; by default seven, without
            JPEG compression where the images are neither grey nor RGB.
        samples: so many of the images at most, drawn at random.

    Raises:
        ValueError: if a setting is out of its range.
        ClassifierError: if one of the others takes other images or knows other classes.
        DataError: if JPEG compression is asked for and the images are neither grey nor RGB.

    Example:
        >>> method = CorruptionTable(others=(load_classifier("embedded:mnist-corrupted"),))
        >>> result = method(classifier, generator, x, y, rng=torch.Generator().manual_seed(0))
        >>> result.summary["worst"]

    References:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR 2019. The order of the table is that of the slides of "Finding the failure conditions".
    """

    result_type: ClassVar[type[CorruptionTableResult]] = CorruptionTableResult

    def __init__(
        self,
        *,
        others: tuple[Classifier, ...] = (),
        corruptions: tuple[str, ...] | None = None,
        samples: int = 1000,
    ) -> None:
        named = _SLIDES if corruptions is None else corruptions
        if set(named) - CORRUPTIONS.keys() or not named or len(set(named)) < len(named):
            raise ValueError(
                f"Expected `corruptions` to be some of {', '.join(CORRUPTIONS)}, each once, but got "
                f"{', '.join(named) or 'none'}."
            )
        if samples < 1:
            raise ValueError(f"Expected `samples` to be at least 1, but got {samples}.")
        self.others = tuple(others)
        self.corruptions = None if corruptions is None else tuple(corruptions)
        self.samples = samples

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
    ) -> CorruptionTableResult:
        """Corrupt the images, classify them, and choose the one to show."""
        require_same_task(classifier, self.others)
        classifiers = (classifier, *self.others)
        left_out = (_JPEG,) if self.corruptions is None and x.shape[1] not in _JPEG_CHANNELS else ()
        kinds = tuple(name for name in self.corruptions or _SLIDES if name not in left_out)
        chosen = torch.randperm(len(x), generator=rng)[: self.samples].sort().values
        x, y = x[chosen], y[chosen]
        batch = max(1, _VALUES // x[0].numel())
        seeds = torch.randint(2**62, (-(-len(x) // batch),), generator=rng).tolist()

        parts = []
        for part, labels, seed in zip(x.split(batch), y.split(batch), seeds, strict=True):
            ways = _ways(part, kinds, seed)
            right = [torch.stack([each.predict(images) == labels for each in classifiers]) for images in ways]
            parts.append(torch.stack(right, dim=1))
        right_ways = torch.cat(parts, dim=2)

        row = _telling(right_ways[0])
        start = row // batch * batch
        again = _ways(x[start : start + batch], kinds, seeds[row // batch])
        shown = torch.cat([images[row - start, None] for images in again])
        names = told_apart([each.name for each in classifiers])
        of_rows = [f"{UNCORRUPTED}/0", *(f"{name}/{severity}" for name in kinds for severity in SEVERITIES)]
        return CorruptionTableResult(
            images=shown,
            label=int(y[row]),
            shown=ids[int(chosen[row])],
            verdicts=torch.stack([each.predict(shown) for each in classifiers]),
            right=right_ways,
            corruptions=kinds,
            left_out=left_out,
            classifiers=names,
            class_names=classifier.class_names,
            ids=tuple(f"{name}/{way}" for name in names for way in of_rows),
        )


def _ways(x: Float[Tensor, "N C H W"], corruptions: Sequence[str], seed: int) -> Iterator[Float[Tensor, "N C H W"]]:
    """Yield the 8-bit images in each of the ways; the same seed draws the same pixels."""
    rng = torch.Generator().manual_seed(seed)
    yield to_8_bits(x)
    for name in corruptions:
        for severity in SEVERITIES:
            yield to_8_bits(corrupt(x, name, severity=severity, rng=rng))


def _by_corruption(right: Bool[Tensor, "N J"]) -> Float[Tensor, "S J"]:
    """Return in what share of the severities of each corruption each image is right."""
    shares: Tensor = right[1:].double().unflatten(0, (-1, _LEVELS)).mean(dim=1)
    return shares


def _telling(right: Bool[Tensor, "N J"]) -> int:
    """Return which image fares most as the average one does, of those that are right uncorrupted if there are any.

    If any of these is lost at the last severity of the corruption that most images are lost under, it is one of them.
    """
    values = right.double()
    distance = (values - values.mean(dim=1, keepdim=True)).abs().sum(dim=0)
    worst = _LEVELS * (1 + int(_by_corruption(right).mean(dim=1).argmin()))
    for wanted in (right[0] & ~right[worst], right[0]):
        if wanted.any():
            distance = distance.masked_fill(~wanted, torch.inf)
            break
    return int(distance.argmin())


def _words(corruption: str) -> str:
    return _WORDS.get(corruption, corruption.replace("_", " "))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
