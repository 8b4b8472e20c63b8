"""What a classifier takes for each class, and how it is shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.method import SHARED, Origin, Result
from failscape.figures import (
    Figure,
    Finding,
    Panel,
    PictureGroup,
    PictureMatrix,
    Plot,
    collage,
    heat_tables,
    percent,
    picture_matrix,
    rate_bars,
)
from failscape.metrics import Estimate, difference_of_rates, mean, rate

REAL, SEARCH, TRAINING = range(3)
_WAYS = {REAL: "real", SEARCH: "search", TRAINING: "training"}
_PANELS = 6

_RATE = "Share of the images steered to a class {way} that the classifier takes for it, of the class with the lowest. "
_DISPUTED = (
    "Share of the {images} that the classifier takes for the class asked for in which the oracle, a classifier trained "
    "apart that guides nothing, sees another; over all classes. "
)
_WILSON, _NEWCOMBE, _BOOTSTRAP = (f"Interval: {kind}, 95 %." for kind in ("Wilson", "Newcombe", "bootstrap"))

_DEFINITIONS = {
    "search_rate": _RATE.format(way="by search") + _WILSON,
    "training_rate": _RATE.format(way="by training") + _WILSON,
    "search_disputed": _DISPUTED.format(images="images found by search") + _WILSON,
    "training_disputed": _DISPUTED.format(images="images drawn after training") + _WILSON,
    "real_disputed": _DISPUTED.format(images="real images") + _WILSON,
    "rate_difference": "Share that the classifier accepts over all classes, by training less by search. " + _NEWCOMBE,
    "disputed_difference": "Disputed share by training less by search. " + _NEWCOMBE,
    "search_unreached": "Classes to which the search led no image.",
    "training_unreached": "Classes to which the training led no image.",
    "id": "Name of the image.",
    "way": "real: a real image that the classifier takes for the class. search: found in the latent space of the "
    "generator. training: drawn by a copy of the generator that was trained toward the class.",
    "asked": "The class steered to.",
    "prediction": "The class that the classifier takes the 8-bit image for.",
    "probability": "The classifier's probability of the class steered to.",
    "oracle_prediction": "The class that the oracle takes the 8-bit image for.",
    "disputed": "Whether the classifier takes the image for the class asked for and the oracle does not.",
    "realism": "Score that the generator's critic, before any steering, gives the image; higher is more like its "
    "training images.",
    "log_prior": "Log-density of the prior, in nats, at the latent that the generator's encoder, before any steering, "
    "gives the image; higher is more typical.",
}
for _way in _WAYS.values():
    for _key in ("realism", "log_prior"):
        _DEFINITIONS[f"{_way}_{_key}"] = f"Mean over the images of this way ({_way}). {_DEFINITIONS[_key]} {_BOOTSTRAP}"


@final
@dataclass(frozen=True, kw_only=True)
class ClassConvergenceResult(Result):
    """What `ClassConvergence` found.

    Attributes:
        images: all images, 8-bit values in [0, 1]; `way` says how each came about.
        ids: their names.
        way: `REAL`, `SEARCH` or `TRAINING`.
        asked: the class steered to; of a real image the one that the classifier takes it for.
        realism: score by the critic of the generator that was given; NaN where it keeps none.
        log_prior: of the latent that its encoder gives the image; NaN where it has none.
        chosen: the classes, in the order to be shown.
        shown: images of each class in the figures.
        class_names: K names.
    """

    ids: tuple[str, ...]
    way: Int[Tensor, " N"]
    asked: Int[Tensor, " N"]
    realism: Float[Tensor, " N"]
    log_prior: Float[Tensor, " N"]
    chosen: Int[Tensor, " L"]
    shown: int
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Found by search or drawn, but for real images."""
        return tuple("test" if way == REAL else "generated" for way in self.way.tolist())

    @property
    def made_from(self) -> tuple[str, ...]:
        """Real images are themselves."""
        return tuple(name if way == REAL else "" for name, way in zip(self.ids, self.way.tolist(), strict=True))

    @property
    def accepted(self) -> Bool[Tensor, " N"]:
        """Whether the classifier takes the 8-bit image for the class asked for."""
        assert self.verification is not None
        return self.verification.prediction == self.asked

    @property
    def disputed(self) -> Bool[Tensor, " N"] | None:
        """Whether the classifier accepts the image and the oracle sees another class; None without an oracle."""
        assert self.verification is not None
        seen = self.verification.oracle_prediction
        return None if seen is None else self.accepted & (seen != self.asked)

    @property
    def ways(self) -> list[int]:
        """The ways by which images were steered."""
        return [way for way in (SEARCH, TRAINING) if bool((self.way == way).any())]

    def of(self, way: int, label: int | None = None) -> Bool[Tensor, " N"]:
        """Return which images are of a way, and of a class."""
        return (self.way == way) if label is None else (self.way == way) & (self.asked == label)

    def rates(self, way: int) -> list[Estimate]:
        """Return for each class chosen the share that the classifier accepts."""
        return [rate(self.accepted[self.of(way, k)]) for k in self.chosen.tolist()]

    def disputed_rates(self, way: int) -> list[Estimate] | None:
        """Return for each class chosen the share of what is accepted that the oracle disputes."""
        disputed = self.disputed
        if disputed is None:
            return None
        return [rate(disputed[self.of(way, k) & self.accepted]) for k in self.chosen.tolist()]

    def seen(self, way: int) -> Int[Tensor, "L K"] | None:
        """Return, of the accepted images of each class chosen, how many the oracle takes for each class."""
        assert self.verification is not None
        prediction = self.verification.oracle_prediction
        if prediction is None:
            return None
        rows = [prediction[self.of(way, k) & self.accepted] for k in self.chosen.tolist()]
        return torch.stack([row.bincount(minlength=len(self.class_names)) for row in rows])

    def unreached(self, way: int) -> list[int]:
        """Return the classes of which no image steered there is accepted."""
        return [k for k, share in zip(self.chosen.tolist(), self.rates(way), strict=True) if share.value == 0]

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The numbers of the summary with their intervals, `search_rate` and `search_disputed` among them."""
        numbers: dict[str, Estimate] = {}
        disputed = self.disputed
        for way in self.ways:
            numbers[f"{_WAYS[way]}_rate"] = min(self.rates(way), key=lambda share: share.value)
        if disputed is not None:
            for way in (*self.ways, REAL):
                numbers[f"{_WAYS[way]}_disputed"] = rate(disputed[self.of(way) & self.accepted])
        if len(self.ways) == 2:
            search, training = (self.of(way) for way in self.ways)
            numbers["rate_difference"] = difference_of_rates(self.accepted[training], self.accepted[search])
            if disputed is not None:
                numbers["disputed_difference"] = difference_of_rates(
                    disputed[training & self.accepted], disputed[search & self.accepted]
                )
        for key, values in (("realism", self.realism), ("log_prior", self.log_prior)):
            if values.isfinite().any():
                for way in (*self.ways, REAL):
                    numbers[f"{_WAYS[way]}_{key}"] = mean(values[self.of(way)])
        return numbers

    @property
    def summary(self) -> dict[str, float]:
        """How well each way leads to the classes, and how much of what is accepted is disputed."""
        summary: dict[str, float] = {}
        for key, number in self.estimates.items():
            summary |= number.named(key)
        return summary | {f"{_WAYS[way]}_unreached": float(len(self.unreached(way))) for way in self.ways}

    @property
    def table(self) -> pa.Table:
        """One row an image."""
        assert self.verification is not None
        names = self.class_names
        columns: dict[str, object] = {
            "id": pa.array(self.ids, pa.string()),
            "way": [_WAYS[way] for way in self.way.tolist()],
            "asked": [names[k] for k in self.asked.tolist()],
            "prediction": [names[k] for k in self.verification.prediction.tolist()],
            "probability": self.verification.probs.gather(1, self.asked[:, None])[:, 0].numpy(),
        }
        seen = self.verification.oracle_prediction
        if seen is not None and self.disputed is not None:
            columns["oracle_prediction"] = [names[k] for k in seen.tolist()]
            columns["disputed"] = self.disputed.numpy()
        for key, values in (("realism", self.realism), ("log_prior", self.log_prior)):
            if values.isfinite().any():
                columns[key] = values.numpy()
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """A collage of each way, the shares, and what the oracle sees in what is accepted."""
        judged = self.disputed is not None
        figures: list[Figure] = [self._collage(way) for way in self.ways]
        figures.append(
            Plot(
                name="rates",
                title="What the classifier accepts and the oracle disputes",
                caption="For each class the share of the images steered to it that the classifier accepts"
                + (", and the share of these that the oracle disputes; beside it the same of real images" * judged)
                + ". Intervals: Wilson, 95 %.",
                draw=self._draw_rates,
            )
        )
        if judged:
            figures.append(
                Plot(
                    name="seen",
                    title="What the oracle sees in what is accepted",
                    caption="Percent of the images that the classifier takes for the class of the row in which the "
                    "oracle sees the class of the column; empty for none. What lies outside the classes' own cells is "
                    "disputed.",
                    draw=self._draw_seen,
                )
            )
            figures += [self._matrix(way) for way in self.ways]
        return figures

    @property
    def findings(self) -> Sequence[Finding]:
        """The class of which most is disputed, and those that could not be reached."""
        names, found = self.class_names, []
        way = self.ways[0]
        shares, seen = self.disputed_rates(way), self.seen(way)
        if shares is not None and seen is not None:
            place = max(range(len(shares)), key=lambda i: -1 if math.isnan(shares[i].value) else shares[i].value)
            label = int(self.chosen[place])
            if shares[place].value > 0:
                others = seen[place].clone()
                others[label] = 0
                real = (self.disputed_rates(REAL) or [])[place]
                sentence = (
                    f"In {percent(shares[place].value)} of the generated images that the classifier takes for "
                    f"{names[label]} a second classifier, which judges and never guides, sees something else, most "
                    f"often {names[int(others.argmax())]}"
                    + (f"; of real images, in {percent(real.value)}." if real.n else ".")
                )
                rows = self._disputed_rows(way, label)[:_PANELS]
                found.append(Finding(sentence=sentence, panels=[self._panel(row) for row in rows]))
            elif self.accepted[self.of(way)].any():
                sentence = (
                    "In none of the generated images that it accepts does a second classifier, which judges and never "
                    "guides, see another class."
                )
                found.append(Finding(sentence=sentence))
        missing = self.unreached(way)
        if missing:
            listed = ", ".join(names[k] for k in missing)
            found.append(Finding(sentence=f"No image was generated that the classifier takes for {listed}."))
        return found

    def _disputed_rows(self, way: int, label: int, seen: int | None = None) -> list[int]:
        """Return the disputed images of a class, the classifier's surest first."""
        assert self.verification is not None
        disputed, prediction = self.disputed, self.verification.oracle_prediction
        assert disputed is not None
        assert prediction is not None
        chosen = disputed & self.of(way, label)
        if seen is not None:
            chosen &= prediction == seen
        rows = chosen.nonzero()[:, 0]
        order = self.verification.probs[rows, label].argsort(descending=True, stable=True)
        ordered: list[int] = rows[order].tolist()
        return ordered

    def _panel(self, row: int) -> Panel:
        assert self.verification is not None
        prediction = self.verification.oracle_prediction
        assert prediction is not None
        return Panel(label=f"oracle: {self.class_names[int(prediction[row])]}", pixels=self.images[row])

    def _mark(self, row: int) -> str:
        """Return what is to stand above an image: nothing where both classifiers see the class asked for."""
        assert self.verification is not None
        if not bool(self.accepted[row]):
            return f"[{self.class_names[int(self.verification.prediction[row])]}]"
        seen = self.verification.oracle_prediction
        if seen is None or int(seen[row]) == int(self.asked[row]):
            return ""
        return self.class_names[int(seen[row])]

    def _collage(self, way: int) -> Plot:
        others = "those that the classifier takes for another class, named in brackets."
        if self.disputed is not None:
            others = f"those that it accepts and in which the oracle sees the class named above, and {others}"
        return Plot(
            name=f"{_WAYS[way]}-collage",
            title=f"What the classifier takes for each class, by {_WAYS[way]}",
            caption=f"A row a class, the first images steered to it. Framed are {others}",
            draw=lambda: self._draw_collage(way),
        )

    def _matrix(self, way: int) -> PictureMatrix:
        """Return the disputed images by the class asked for and by what the oracle sees."""
        names, seen = self.class_names, self.seen(way)
        assert seen is not None
        groups = []
        for place, label in enumerate(self.chosen.tolist()):
            total = int(seen[place].sum())
            for other in range(len(names)):
                rows = [] if other == label else self._disputed_rows(way, label, other)
                if rows:
                    groups.append(
                        PictureGroup(
                            title=f"Taken for {names[label]}; the oracle sees {names[other]}",
                            note=f"{len(rows):,} of the {total:,} images that the classifier takes for {names[label]}; "
                            "its surest first.",
                            cells=[(place, other)],
                            panels=[
                                Panel(label=f"{self._probability(row):.3f}", pixels=self.images[row])
                                for row in rows[: self.shown]
                            ],
                        )
                    )
        return PictureMatrix(
            name=f"{_WAYS[way]}-disputed",
            title=f"What is disputed, by {_WAYS[way]}",
            caption="A row a class steered to, a column a class that the oracle sees; each picture is the one of which "
            "the classifier is surest. Below each picture stands the classifier's probability of its row.",
            draw=lambda: picture_matrix(
                {group.cells[0]: group.panels[0].pixels for group in groups},
                row_labels=self._row_labels,
                column_labels=names,
            ),
            row_labels=self._row_labels,
            column_labels=names,
            groups=groups,
        )

    def _probability(self, row: int) -> float:
        assert self.verification is not None
        return float(self.verification.probs[row, int(self.asked[row])])

    @property
    def _row_labels(self) -> list[str]:
        return [self.class_names[k] for k in self.chosen.tolist()]

    def _draw_collage(self, way: int) -> Drawing:
        rows = [self.of(way, k).nonzero()[: self.shown, 0] for k in self.chosen.tolist()]
        return collage(
            [self.images[row] for row in rows],
            row_labels=self._row_labels,
            marks=[[self._mark(i) for i in row.tolist()] for row in rows],
        )

    def _draw_rates(self) -> Drawing:
        shares = {f"accepted, {_WAYS[way]}": self.rates(way) for way in self.ways}
        for way in (*self.ways, REAL):
            disputed = self.disputed_rates(way)
            if disputed is not None:
                shares[f"disputed, {_WAYS[way]}"] = disputed
        return rate_bars(
            {name: [share.value for share in rates] for name, rates in shares.items()},
            {name: [(share.low, share.high) for share in rates] for name, rates in shares.items()},
            groups=self._row_labels,
            y_label="share of images",
        )

    def _draw_seen(self) -> Drawing:
        tables = {}
        for way in (*self.ways, REAL):
            seen = self.seen(way)
            assert seen is not None
            tables[_WAYS[way]] = torch.where(seen > 0, seen / seen.sum(dim=1, keepdim=True), torch.nan)
        return heat_tables(
            tables,
            row_labels=self._row_labels,
            column_labels=self.class_names,
            x_label="what the oracle sees",
            y_label="what the classifier takes it for",
            dark="high",
        )
