"""What uncertain samples show: scores requested and obtained, grids and sweeps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.classifiers import SCORES
from failscape.explain.method import EIGHT_BITS, SHARED, Origin, Result
from failscape.figures import (
    Case,
    Figure,
    Finding,
    Gallery,
    Line,
    Panel,
    Plot,
    heat_tables,
    image_grid,
    requested_against_obtained,
)
from failscape.generators.condition import VECTOR
from failscape.metrics import Estimate, QuantileBands, mean, quantile_bands, rank_correlation, rate

ALONE, REFINED, REAL, GRID, SWEEP, REAL_SWEEP, REAL_GRID = range(7)
_PARTS = ("alone", "refined", "real", "grid", "sweep", "real sweep", "real grid")
# By so much a score may rise from one level to the next and still count as falling: half of what a request is met to.
_RISE = 0.005
_CASES = 20

_OF = {
    "alone": "of the generator alone",
    "refined": "after the refinement",
    "real": "of real images of the same classes and scores",
}
_DEFINITIONS = {
    **{
        key: text.format(_OF[part])
        for part in ("alone", "refined")
        for key, text in (
            (f"{part}_spearman", "Rank correlation (Spearman) of requested and obtained score, {}."),
            (f"{part}_error", "Mean absolute difference of requested and obtained score, {}. Interval: normal, 95 %."),
            (f"{part}_class", "Share of images that the classifier takes for the class asked for, {}. Wilson, 95 %."),
        )
    },
    **{
        key: text.format(_OF[part])
        for part in ("alone", "refined", "real")
        for key, text in (
            (f"{part}_oracle_spearman", "Rank correlation of requested score and the oracle's own score, {}."),
            (f"{part}_oracle_class", "Share of images whose class the oracle agrees on, {}. Wilson, 95 %."),
        )
    },
    **{
        f"{part}_{key}_ratio": f"{what}, {_OF[part]}, as a part of that of real images. Only requests count for which "
        "there is a real image of that class and score."
        for part in ("alone", "refined")
        for key, what in (
            ("oracle_spearman", "Rank correlation of requested score and the oracle's own score"),
            ("oracle_class", "Share of images whose class the oracle agrees on"),
        )
    },
    "monotone": "Share of sweeps of a latent, refined, in which the score falls from the first request to the last "
    f"and is never more than {_RISE} above what it was at a higher one. Wilson, 95 %.",
    "real_monotone": "Share of sweeps of a real image in which it does. Wilson, 95 %.",
    "id": "Name of the image in this result.",
    "part": "alone: as the generator draws it; refined: after the search; real: a real image of that class and "
    "score; grid, sweep, real sweep: refined images of the global and the local view; real grid: real images of the "
    "classes and scores of the grid.",
    "row": "Number of the level (grid), of the latent (sweeps), or of the request or picture of the grid that a real "
    "image stands for; -1 elsewhere.",
    "asked": "The class asked for.",
    "requested": "The score asked for; of a real image, that of the request it stands for.",
    "prediction": "What the classifier takes the image for.",
    "obtained": "The classifier's score.",
    "oracle_prediction": "What the oracle takes the image for.",
    "oracle_obtained": "The oracle's score.",
    "largest miss": "Largest difference of requested and obtained score in the sweep.",
    "oracle agrees": "On how many of the sweep's drawn images the oracle sees the class asked for.",
}


@final
@dataclass(frozen=True, kw_only=True)
class UncertainResult(Result):
    """What `UncertainSamples` found.

    Attributes:
        images: all images, 8-bit values in [0, 1]; `part` says what each is.
        part: `ALONE`, `REFINED`, `REAL`, `GRID`, `SWEEP`, `REAL_SWEEP` or `REAL_GRID`.
        row: level of the grid, number of the sweep, or of the request or the picture of the grid that a real image
            stands for; -1 elsewhere.
        asked: class asked for.
        requested: score asked for.
        sources: the real images that were swept.
        source_ids: their names.
        unswept: why no real images were swept; empty where some were.
        score: which score.
        class_names: K names.
    """

    part: Int[Tensor, " N"]
    row: Int[Tensor, " N"]
    asked: Int[Tensor, " N"]
    requested: Float[Tensor, " N"]
    sources: Float[Tensor, "R C H W"] = field(metadata=EIGHT_BITS)
    source_ids: tuple[str, ...]
    unswept: str
    score: str
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Drawn, but for real images and what they become."""
        return tuple("test" if part in (REAL, REAL_SWEEP, REAL_GRID) else "generated" for part in self.part.tolist())

    @property
    def made_from(self) -> tuple[str, ...]:
        """The latent or the real image that is swept."""
        names = {SWEEP: "latent {}".format, REAL_SWEEP: lambda number: self.source_ids[number]}
        return tuple(
            names[part](number) if part in names else ""
            for part, number in zip(self.part.tolist(), self.row.tolist(), strict=True)
        )

    @property
    def obtained(self) -> Float[Tensor, " N"]:
        """The classifier's score of each 8-bit image."""
        assert self.verification is not None
        return self._scores_in(self.verification.probs)

    @property
    def oracle_obtained(self) -> Float[Tensor, " N"] | None:
        """The oracle's score of each 8-bit image."""
        assert self.verification is not None
        probs = self.verification.oracle_probs
        return None if probs is None else self._scores_in(probs)

    @property
    def kept(self) -> Bool[Tensor, " N"]:
        """Whether the classifier takes the 8-bit image for the class asked for."""
        assert self.verification is not None
        return self.verification.prediction == self.asked

    @property
    def oracle_agrees(self) -> Bool[Tensor, " N"] | None:
        """Whether the oracle takes the 8-bit image for the class asked for."""
        assert self.verification is not None
        prediction = self.verification.oracle_prediction
        return None if prediction is None else prediction == self.asked

    def of(self, part: int) -> Bool[Tensor, " N"]:
        """Return which images belong to a part."""
        return self.part == part

    def bands(self, part: int) -> QuantileBands:
        """Return the quantiles of the score obtained, by that requested, of `ALONE` or `REFINED`."""
        rows = self.of(part)
        return quantile_bands(self.requested[rows], self.obtained[rows])

    def monotone(self, part: int = SWEEP) -> Bool[Tensor, " R"]:
        """Return of each sweep whether the obtained score falls all the way as the requested one does."""
        rows = self.of(part)
        obtained = self.obtained[rows].view(-1, self._levels(part))
        rises = obtained - obtained.cummin(dim=1).values
        return (rises <= _RISE).all(dim=1) & (obtained[:, -1] < obtained[:, 0] - _RISE)

    @property
    def estimates(self) -> dict[str, Estimate | float]:
        """The numbers of the summary, with their intervals."""
        numbers: dict[str, Estimate | float] = {}
        theirs, agrees = self.oracle_obtained, self.oracle_agrees
        for part, name in ((ALONE, "alone"), (REFINED, "refined"), (REAL, "real")):
            rows = self.of(part)
            if rows.sum() < 3:
                continue
            requested, obtained = self.requested[rows], self.obtained[rows]
            if part != REAL:
                numbers[f"{name}_spearman"] = rank_correlation(requested, obtained)
                numbers[f"{name}_error"] = mean((requested - obtained).abs())
                numbers[f"{name}_class"] = rate(self.kept[rows])
            if theirs is not None and agrees is not None:
                numbers[f"{name}_oracle_spearman"] = rank_correlation(requested, theirs[rows])
                numbers[f"{name}_oracle_class"] = rate(agrees[rows])
        numbers |= self._ratios()
        numbers["monotone"] = rate(self.monotone())
        if len(self.sources):
            numbers["real_monotone"] = rate(self.monotone(REAL_SWEEP))
        return numbers

    def _ratios(self) -> dict[str, Estimate | float]:
        """What the oracle makes of samples, as a part of what it makes of real images of the same requests."""
        theirs, agrees = self.oracle_obtained, self.oracle_agrees
        real = self.of(REAL).nonzero()[:, 0]
        if theirs is None or agrees is None or len(real) < 3:
            return {}
        ratios: dict[str, Estimate | float] = {}
        correlation, share = rank_correlation(self.requested[real], theirs[real]), float(agrees[real].float().mean())
        for part, name in ((ALONE, "alone"), (REFINED, "refined")):
            rows = self.of(part).nonzero()[:, 0][self.row[real]]
            found = rank_correlation(self.requested[rows], theirs[rows])
            ratios[f"{name}_oracle_spearman_ratio"] = found / correlation if correlation else math.nan
            ratios[f"{name}_oracle_class_ratio"] = float(agrees[rows].float().mean()) / share if share else math.nan
        return ratios

    @property
    def summary(self) -> dict[str, float]:
        """How well what was asked for is obtained."""
        summary: dict[str, float] = {}
        for key, number in self.estimates.items():
            if isinstance(number, Estimate):
                summary |= number.named(key)
            else:
                summary[key] = number
        return summary

    @property
    def table(self) -> pa.Table:
        """One row an image."""
        assert self.verification is not None
        names = self.class_names
        columns = {
            "id": [f"{_PARTS[part]}-{i}" for i, part in enumerate(self.part.tolist())],
            "part": [_PARTS[part] for part in self.part.tolist()],
            "row": self.row.numpy(),
            "asked": [names[k] for k in self.asked.tolist()],
            "requested": self.requested.numpy(),
            "prediction": [names[k] for k in self.verification.prediction.tolist()],
            "obtained": self.obtained.numpy(),
        }
        theirs = self.verification.oracle_prediction
        if theirs is not None and self.oracle_obtained is not None:
            columns["oracle_prediction"] = [names[k] for k in theirs.tolist()]
            columns["oracle_obtained"] = self.oracle_obtained.numpy()
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """The grid and real images beside it, requested against obtained as dots and as a table, and the sweeps."""
        figures: list[Figure] = [
            Plot(
                name="grid",
                title=f"From {self._way}: samples at falling {self._name}",
                caption=f"A column a class, a row a requested {self._name}; each picture a sample of its own latent, "
                f"refined. Above it stands the {self._name} obtained, measured on the 8-bit picture. A name in "
                "brackets says that the classifier does not take it for the class asked for, but for that one."
                f"{self._no_real_grid}",
                draw=self._draw_grid,
            ),
            *self._real_grid,
            Plot(
                name="requested-against-obtained",
                title=f"{self._name.capitalize()} requested and obtained",
                caption=f"Each dot a sample of its own latent, classified as an 8-bit image. {self._ways_drawn} Bands: "
                "25 to 75 % and 5 to 95 % of what was obtained. Where everything is obtained as requested, all dots "
                "lie on the diagonal.",
                draw=self._draw_requests,
            ),
            Plot(
                name="requested-against-obtained-table",
                title=f"{self._name.capitalize()} requested and obtained, in numbers",
                caption=f"The bands of the figure before, in percent. A row is a tenth of the range of requests: its "
                f"middle and, in brackets, how many requests lie in it. A column is a quantile of the {self._name} "
                f"obtained for these: half of them obtain less than what stands under 50 %. {self._ways_drawn}",
                draw=self._draw_bands,
            ),
            self._sweeps("sweeps", f"One latent, from {self._way}", SWEEP, missing=self._unswept),
        ]
        if len(self.sources):
            figures.append(self._sweeps("real-sweeps", f"A real image, from {self._way}", REAL_SWEEP))
        return figures

    @property
    def _drawn(self) -> dict[str, int]:
        """The parts that answer all requests, by name; a refinement that changed nothing is none."""
        refined = not torch.equal(self.images[self.of(ALONE)], self.images[self.of(REFINED)])
        return {"generator alone": ALONE} | ({"refined": REFINED} if refined else {})

    @property
    def _ways_drawn(self) -> str:
        if len(self._drawn) == 1:
            return "All are as the generator draws them."
        return "Left: as the generator draws it. Right: after the refinement, a few steps of search from there."

    @property
    def _unswept(self) -> str:
        return f" Real images are not swept: {self.unswept}." if self.unswept else ""

    @property
    def _no_real_grid(self) -> str:
        if self.of(REAL_GRID).any():
            return ""
        return f" No real images stand beside it: of those given none comes near a {self._name} asked for of its class."

    @property
    def _real_grid(self) -> Sequence[Figure]:
        if not self.of(REAL_GRID).any():
            return []
        return [
            Plot(
                name="real-grid",
                title=f"The same of real images: from {self._way}",
                caption=f"Of each class and {self._name} above, a real image that comes near; no image twice. Empty "
                "where none does. What samples and real images share is the classifier's weakness, and what only "
                "samples show may be the generator's.",
                draw=self._draw_real_grid,
            )
        ]

    @property
    def findings(self) -> Sequence[Finding]:
        """What becomes of a picture as the classifier gets less sure of it."""
        assert self.verification is not None
        falls = self.monotone()
        fell = falls.nonzero()[:, 0].tolist()
        # Of what falls all the way, the series in which the oracle, too, sees the class longest.
        number = max(fell or range(len(falls)), key=lambda number: self._agreement(SWEEP, number))
        rows = (self.of(SWEEP) & (self.row == number)).nonzero()[:, 0]
        shown = rows[torch.linspace(0, len(rows) - 1, min(6, len(rows))).round().long()]
        scores, predictions = self.obtained[rows], self.verification.prediction[shown].tolist()
        wanted = self.class_names[int(self.asked[rows[0]])]
        sentence = (
            f"Led from {self._way}, the picture of a {wanted} takes the classifier's {self._name} from "
            f"{scores[0]:.2f} to {scores[-1]:.2f}; in {len(fell):,} of {len(falls):,} such series it falls all the way."
        )
        panels = [
            Panel(label=f"{self.class_names[k]} ({score:.2f})", pixels=self.images[row])
            for k, score, row in zip(predictions, self.obtained[shown].tolist(), shown.tolist(), strict=True)
        ]
        return (Finding(sentence=sentence, panels=panels),)

    @property
    def _name(self) -> str:
        return {"true-class": "true-class probability", VECTOR: "confidence"}.get(self.score, self.score)

    @property
    def _way(self) -> str:
        """Where the falling requests lead."""
        return "unsure to sure" if self.score == "entropy" else "sure to unsure"

    def _scores_in(self, probs: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
        kind = SCORES["confidence" if self.score == VECTOR else self.score]
        logits = probs.clamp_min(torch.finfo(probs.dtype).tiny).log()
        return kind.of(logits, self.asked)

    def _levels(self, part: int) -> int:
        first = self.row[self.of(part)] == 0
        return int(first.sum())

    def _agreement(self, part: int, number: int) -> int:
        """On how many images of a sweep the oracle sees the class asked for; 0 without an oracle."""
        agrees = self.oracle_agrees
        return 0 if agrees is None else int(agrees[self.of(part) & (self.row == number)].sum())

    def _verdicts(self, row: int) -> str:
        """Say what classifier and oracle take an image for, and how sure they are."""
        assert self.verification is not None
        judges = [("", self.verification.probs), ("oracle ", self.verification.oracle_probs)]
        said = [(name, *probs[row].max(dim=0)) for name, probs in judges if probs is not None]
        return ", ".join(f"{name}{self.class_names[int(k)]} {float(confidence):.2f}" for name, confidence, k in said)

    def _draw_grid(self) -> Drawing:
        assert self.verification is not None
        rows = self.of(GRID)
        predictions, obtained = self.verification.prediction[rows].tolist(), self.obtained[rows].tolist()
        asked = self.asked[rows].tolist()
        labels = [
            f"{score:.2f}" if k == wanted else f"[{self.class_names[k]}] {score:.2f}"
            for k, wanted, score in zip(predictions, asked, obtained, strict=True)
        ]
        return self._labelled_grid(self.images[rows], labels, first="asked\n")

    def _draw_real_grid(self) -> Drawing:
        n, real = int(self.of(GRID).sum()), self.of(REAL_GRID).nonzero()[:, 0]
        cells = torch.ones(n, *self.images.shape[1:])
        cells[self.row[real]] = self.images[real]
        labels = ["–"] * n
        for row, cell in zip(real.tolist(), self.row[real].tolist(), strict=True):
            labels[cell] = f"{self.obtained[row]:.2f}"
        return self._labelled_grid(cells, labels)

    def _labelled_grid(self, cells: Float[Tensor, "N C H W"], labels: list[str], *, first: str = "") -> Drawing:
        """Draw pictures in the places of the grid, with its classes above and its requests at the left.

        Args:
            cells: one for each place.
            labels: what stands above each.
            first: what the label of the first row begins with.
        """
        rows = self.of(GRID)
        levels = int(self.row[rows].max()) + 1
        # The first row bears the classes as well.
        columns = len(labels) // levels
        asked = self.asked[rows].tolist()
        heads = [f"{self.class_names[k]}\n{label}" for k, label in zip(asked, labels[:columns], strict=False)]
        # All columns of a row ask for the same, but for a generator of whole distributions, which has the nearest ones.
        requested = self.requested[rows].view(levels, -1).mean(dim=1).tolist()
        row_labels = [f"{value:.2f}" for value in requested]
        row_labels[0] = f"{first}{row_labels[0]}"
        return image_grid(
            cells.unflatten(0, (levels, -1)), row_labels=row_labels, cell_labels=[*heads, *labels[columns:]]
        )

    def _draw_requests(self) -> Drawing:
        panels = {}
        for name, part in self._drawn.items():
            rows = self.of(part)
            panels[name] = (self.requested[rows], self.obtained[rows], self.bands(part))
        return requested_against_obtained(panels, x_label=f"requested {self._name}", y_label=f"obtained {self._name}")

    def _draw_bands(self) -> Drawing:
        # Both parts answer the same requests.
        asked = self.bands(ALONE)
        return heat_tables(
            {name: self.bands(part).quantiles for name, part in self._drawn.items()},
            row_labels=[
                f"{100 * centre:.1f} ({count:.0f})"
                for centre, count in zip(asked.centre.tolist(), asked.count.tolist(), strict=True)
            ],
            column_labels=["5 %", "25 %", "50 %", "75 %", "95 %"],
            x_label=f"quantile of the {self._name} obtained",
            y_label=f"requested {self._name}",
        )

    def _sweeps(self, name: str, title: str, part: int, *, missing: str = "") -> Gallery:
        count = min(_CASES, int(self.row[self.of(part)].max()) + 1)
        start = "One latent and its noise are drawn again and again"
        if part == REAL_SWEEP:
            start = "First the real image; then its latent, which the encoder gives, is drawn again and again"
        return Gallery(
            name=name,
            title=title,
            caption=f"{start} while the requested {self._name}, written below each picture, falls; each is refined. "
            "Beside it stands what the classifier takes the picture for, with its confidence, and the oracle, if any. "
            f"Under it, what has changed since the first one drawn. A case fails if the {self._name} obtained ever "
            f"rises by more than {_RISE} above what it had fallen to, or has not fallen in the end.{missing}",
            class_names=self.class_names,
            cases=[self._case(part, number) for number in range(count)],
            definitions={key: _DEFINITIONS[key] for key in ("largest miss", "oracle agrees")},
        )

    def _case(self, part: int, number: int) -> Case:
        assert self.verification is not None
        rows = (self.of(part) & (self.row == number)).nonzero()[:, 0]
        wanted = int(self.asked[rows[0]])
        class_name = self.class_names[wanted]
        requested, obtained = self.requested[rows], self.obtained[rows]
        panels = [Panel(label="real", pixels=self.sources[number])] if part == REAL_SWEEP else []
        for row, score in zip(rows.tolist(), requested.tolist(), strict=True):
            label = f"{score:.2f}: {self._verdicts(row)}"
            panels.append(Panel(label=label, pixels=self.images[row]))
            if row != rows[0]:
                panels.append(Panel(label=label, pixels=self.images[row] - self.images[rows[0]], signed=True))
        falls = bool(self.monotone(part)[number])
        curves = {f"{class_name}, classifier": self.verification.probs[rows, wanted].flip(0)}
        numbers = {"largest miss": f"{float((requested - obtained).abs().max()):.3f}"}
        if self.verification.oracle_probs is not None and self.oracle_agrees is not None:
            curves[f"{class_name}, oracle"] = self.verification.oracle_probs[rows, wanted].flip(0)
            numbers["oracle agrees"] = f"{self._agreement(part, number)} of {len(rows)}"
        first, last = obtained[0].item(), obtained[-1].item()
        verdict = f"The {self._name} goes from {first:.2f} to {last:.2f}, " + (
            "falling all the way."
            if falls
            else "but not evenly: it rises in between."
            if last < first - _RISE
            else "and does not fall."
        )
        return Case(
            id=self.source_ids[number] if part == REAL_SWEEP else f"latent {number}",
            heading=f"{class_name}, from {self._way}",
            verdict=verdict,
            good=falls and not math.isnan(last),
            panels=panels,
            probabilities={
                f"first, {requested[0]:.2f}": self.verification.probs[rows[0]],
                f"last, {requested[-1]:.2f}": self.verification.probs[rows[-1]],
            },
            numbers=numbers,
            line=Line(x=requested.flip(0), curves=curves, x_label=f"requested {self._name}"),
        )
