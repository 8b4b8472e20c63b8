"""What was found on frontiers between classes, and how it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.method import SHARED, Result
from failscape.figures import (
    Figure,
    Finding,
    Panel,
    PictureGroup,
    PictureMatrix,
    Plot,
    collage,
    percent,
    picture_matrix,
    ranking,
)
from failscape.metrics import Estimate, median, rate
from failscape.search import total_variation

_DOUBTED = "only the classifier"
_COLLAGE_ROWS = 12
_COLLAGE_COLUMNS = 8
_SHORTEST = 45

_DEFINITIONS = {
    "targets": "Target distributions asked for.",
    "found": "Targets of which at least one image is within the tolerance.",
    "images": "Images in all.",
    "rate": "Share of a target's 8-bit images whose probabilities, by the classifier, are within the tolerance of the "
    "target in total variation; of the target with the lowest. Interval: Wilson, 95 %.",
    "median_tv": "Total variation distance of the classifier's probabilities from the target, the median of all "
    "images. Interval: by order statistics, 95 %.",
    "oracle_top": "Share of a target's images within the tolerance of which the oracle, a classifier trained apart "
    "that guides nothing, has the target's classes as its first ones, for a pair its first two; of the target in the "
    "middle by that share, of those of which an image was found and that leave a class out. What only the "
    "classifier believes is an artefact. Interval: Wilson, 95 %.",
    "oracle_agrees": "Share of all images within the tolerance of which the oracle has the target's classes as its "
    "first ones; targets of all classes are left out, since whatever the oracle says, its first ones are theirs. "
    "Interval: Wilson, 95 %. Of one image, in the table: whether it has.",
    "way": "Sum of the distances in the latent space, in units of the prior's deviation, from a frontier image to the "
    "nearest samples of the target's classes: how close the classifier holds them. It grows with their number. Of "
    "a target, the median. Interval: by order statistics, 95 %.",
    "id": "Name of the target, and number of the image.",
    "target": "Name of the target.",
    "total_variation": "Distance of the classifier's probabilities on the 8-bit image from the target, in [0, 1].",
    "success": "Whether that is within the tolerance.",
    "first": "The class that the classifier gives the largest probability.",
    "second": "The class that it gives the second largest.",
    "oracle_first": "The class that the oracle gives the largest probability.",
    "oracle_second": "The class that it gives the second largest.",
    "log_prior": "Log-density of the generator's prior at the latent, in nats: the higher, the more typical.",
    "realism": "Score by the generator's critic: the higher, the more it looks like the training images.",
    "steps": "Gradient evaluations that the search made.",
}


@final
@dataclass(frozen=True, kw_only=True)
class FrontierResult(Result):
    """What `Frontier` found; T targets.

    Attributes:
        images: as many of each target, target after target, 8-bit values in [0, 1].
        ids: name of the target and number of the image.
        asked: the target of each image.
        targets: distributions over the K classes.
        target_names: name of each.
        log_prior: log-density of the prior at each latent, of a training at the encoded one; NaN without an encoder.
        realism: the critic's score; NaN where the generator keeps none.
        way: from each image to the nearest samples of the target's classes, in latent units; NaN where unknown, and of
            a target of one class.
        steps: gradient evaluations of each.
        drawn: how many of the generator's samples the classifier takes for each class.
        samples: of the generator, among which those are.
        tolerance: in total variation.
        shown: images of each target in the report.
        class_names: K names.
    """

    ids: tuple[str, ...]
    asked: Int[Tensor, " N"]
    targets: Float[Tensor, "T K"]
    target_names: tuple[str, ...]
    log_prior: Float[Tensor, " N"]
    realism: Float[Tensor, " N"]
    way: Float[Tensor, " N"]
    steps: Int[Tensor, " N"]
    drawn: Int[Tensor, " K"]
    samples: int
    tolerance: float
    shown: int
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @cached_property
    def total_variation(self) -> Float[Tensor, " N"]:
        """Distance of the verified probabilities from the target."""
        assert self.verification is not None
        return total_variation(self.verification.probs, self.targets[self.asked])

    @cached_property
    def success(self) -> Bool[Tensor, " N"]:
        """Whether the verified image is within the tolerance of its target."""
        return self.total_variation <= self.tolerance

    @cached_property
    def oracle_agrees(self) -> Bool[Tensor, " N"] | None:
        """Whether the oracle's first classes are the target's, if there is an oracle."""
        assert self.verification is not None
        probs = self.verification.oracle_probs
        if probs is None:
            return None
        agrees = torch.zeros(len(probs), dtype=torch.bool)
        for row, target in enumerate(self.targets):
            mine, wanted = self.asked == row, target > 0
            first = probs[mine].topk(int(wanted.sum()), dim=1).indices
            agrees[mine] = wanted[first].all(dim=1)
        return agrees

    @property
    def deniable(self) -> Bool[Tensor, " T"]:
        """Which targets the oracle can disagree with: not those of all classes, its first ones whatever it says."""
        return (self.targets == 0).any(dim=1)

    @cached_property
    def rates(self) -> list[Estimate]:
        """The share of each target's images that are within the tolerance."""
        return [rate(self.success[self.asked == row]) for row in range(len(self.targets))]

    @cached_property
    def oracle_rates(self) -> list[Estimate | None] | None:
        """The share of each target's found images that the oracle agrees on.

        None where none was found, and for a target of all classes.
        """
        agrees = self.oracle_agrees
        if agrees is None:
            return None
        found = [self._judged & (self.asked == row) for row in range(len(self.targets))]
        return [rate(agrees[rows]) if rows.any() else None for rows in found]

    @cached_property
    def ways(self) -> list[Estimate | None]:
        """The median way of each target, over its found images; None where none was found, or the way is not known."""
        known = self.success & self.way.isfinite()
        found = [known & (self.asked == row) for row in range(len(self.targets))]
        return [median(self.way[rows]) if rows.any() else None for rows in found]

    @property
    def never_drawn(self) -> tuple[str, ...]:
        """The classes that targets without an image ask for, and that no sample of the generator is taken for."""
        return self._never_drawn([row for row, each in enumerate(self.rates) if each.value == 0])

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The numbers of the whole, with intervals."""
        numbers = {
            "rate": min(self.rates, key=lambda estimate: estimate.value),
            "median_tv": median(self.total_variation),
        }
        rates = self.oracle_rates
        if rates is not None and (known := [each for each in rates if each is not None]):
            numbers["oracle_top"] = sorted(known, key=lambda estimate: estimate.value)[len(known) // 2]
            assert self.oracle_agrees is not None
            numbers["oracle_agrees"] = rate(self.oracle_agrees[self._judged])
        return numbers

    @property
    def summary(self) -> dict[str, float]:
        """How many targets were reached, how well, and whether the oracle agrees."""
        summary = {
            "targets": float(len(self.targets)),
            "found": float(sum(each.value > 0 for each in self.rates)),
            "images": float(len(self.asked)),
        }
        for key, estimate in self.estimates.items():
            summary |= estimate.named(key)
        return summary

    @property
    def table(self) -> pa.Table:
        """One row an image."""
        assert self.verification is not None
        names = self.class_names
        columns: dict[str, object] = {
            "id": pa.array(self.ids, pa.string()),
            "target": [self.target_names[row] for row in self.asked.tolist()],
            "total_variation": self.total_variation.numpy(),
            "success": self.success.tolist(),
        }
        judges = {"": self.verification.probs, "oracle_": self.verification.oracle_probs}
        for prefix, probs in judges.items():
            if probs is not None:
                first, second = probs.topk(2, dim=1).indices.T.tolist()
                columns |= {f"{prefix}first": [names[k] for k in first], f"{prefix}second": [names[k] for k in second]}
        if self.oracle_agrees is not None:
            rows = zip(self.oracle_agrees.tolist(), self.deniable[self.asked].tolist(), strict=True)
            columns["oracle_agrees"] = pa.array([agrees if may else None for agrees, may in rows], pa.bool_())
        for key, values in (("log_prior", self.log_prior), ("realism", self.realism), ("way", self.way)):
            if values.isfinite().any():
                columns[key] = values.numpy()
        return pa.table(columns | {"steps": self.steps.numpy()})

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    def typical(self, row: int) -> Int[Tensor, " M"]:
        """Return the images of a target that are within the tolerance, the most typical first.

        Typical is what ranks high by the prior's density and by the critic, as far as these tell images apart.
        """
        found = (self.success & (self.asked == row)).nonzero()[:, 0]
        ranks = torch.zeros(len(found), dtype=torch.long)
        for values in self._typical_by.values():
            # Equals have the same rank.
            ranks += torch.unique(-values[found], return_inverse=True)[1]
        return found[ranks.argsort(stable=True)]

    @property
    def _typical_by(self) -> dict[str, Float[Tensor, " N"]]:
        """What is known of how typical images are, and tells them apart."""
        known = {"the prior's density": self.log_prior, "the generator's critic": self.realism}
        return {
            name: values for name, values in known.items() if values.isfinite().all() and values.unique().numel() > 1
        }

    @property
    def figures(self) -> Sequence[Figure]:
        """The atlas, the images of some targets, and which classes lie close."""
        figures: list[Figure] = [self._atlas()]
        order = self._order()
        if order:
            shown = order[:_COLLAGE_ROWS]
            figures.append(
                Plot(
                    name="examples",
                    title="On the frontier",
                    caption=f"Images within {self.tolerance:g} of their target, the most typical first; framed are "
                    "those of which the oracle does not have the same classes first, with the first other one that it "
                    "has." + self._chosen(order, shown),
                    draw=lambda: self._draw_examples(shown),
                )
            )
        ranked = self._ranked
        if ranked:
            figures.append(
                Plot(
                    name="ways",
                    title="Which classes lie close",
                    caption=f"How short the way between the {self._classes(ranked[0])} classes of each target is: from "
                    "the image on the frontier to the nearest samples of the classes, in units of the prior's "
                    "deviation; median and interval."
                    + f" The {_SHORTEST} shortest of {len(ranked)}."
                    * (len(ranked) > _SHORTEST),
                    draw=lambda: self._draw_ways(ranked[:_SHORTEST]),
                )
            )
        return figures

    @property
    def findings(self) -> Sequence[Finding]:
        """Which classes lie closest, and what only the classifier believes."""
        order = self._order()
        if not order:
            tried = "the one target" if len(self.targets) == 1 else f"any of {len(self.targets):,} targets"
            nothing = f"No image was found on the frontier of {tried}." + self._blamed(self.never_drawn)
            return (Finding(sentence=nothing),)
        asked, ranked = len(self.targets), self._ranked
        named = self.target_names[0] if asked == 1 else f"{len(order):,} of {asked:,} targets"
        sentence = f"Images on the frontier were found for {named}." + self._blamed(self.never_drawn)
        if ranked:
            sentence = f"{self._compared(ranked, len(order))} {sentence}"
        rows = self.typical(order[0])[:6].tolist()
        found = [Finding(sentence=sentence, panels=[self._panel(row) for row in rows])]
        agrees = self.oracle_agrees
        if agrees is not None and self._judged.any():
            doubted = self._judged & ~agrees
            share = float(doubted.sum() / self._judged.sum())
            examples = [row for each in order for row in self.typical(each)[:1].tolist() if doubted[row]]
            found.append(
                Finding(
                    sentence=f"Of {int(self._judged.sum()):,} images that the classifier holds for the frontier, a "
                    f"second one, which judges and never guides, does not have the same classes first in "
                    f"{percent(share)}.",
                    panels=[self._panel(row) for row in examples[:6]],
                )
            )
        return found

    def _compared(self, ranked: Sequence[int], found: int) -> str:
        """Return which way is the shortest; of two, beside the other."""
        nearest, *others = (self._spoken(row) for row in ranked)
        if len(others) == 1:
            if others[0] == nearest:
                nearest, *others = (self.target_names[row] for row in ranked)
            return f"Between {nearest} the way is shorter for this classifier than between {others[0]}."
        kind = self._classes(ranked[0])
        among = "" if len(ranked) == found else f", of the known ways between {kind} classes"
        return f"Between {nearest} the way is shortest for this classifier{among}."

    def _never_drawn(self, rows: Sequence[int]) -> tuple[str, ...]:
        asked = (self.targets[list(rows)] > 0).any(dim=0) & (self.drawn == 0)
        return tuple(self.class_names[k] for k in asked.nonzero()[:, 0].tolist())

    def _blamed(self, names: Sequence[str]) -> str:
        """Return a sentence on classes that the generator does not draw, with a space before it; nothing of none."""
        if not names:
            return ""
        *others, last = names
        listed = f"{', '.join(others)} or {last}" if others else last
        return f" Of {self.samples:,} samples of the generator the classifier takes none for {listed}."

    @property
    def _judged(self) -> Bool[Tensor, " N"]:
        """Images on a frontier, of targets that the oracle can disagree with."""
        return self.success & self.deniable[self.asked]

    @cached_property
    def _ranked(self) -> list[int]:
        """Targets whose ways can be held against each other, the shortest first; none where there are fewer than two.

        They are those between equally many classes, since the way is a sum over these; of such groups the largest.
        """
        groups: dict[int, list[tuple[float, int]]] = {}
        for row, way in enumerate(self.ways):
            if way is not None:
                groups.setdefault(self._classes(row), []).append((way.value, row))
        largest = max(groups.values(), key=len, default=[])
        return [row for _, row in sorted(largest)] if len(largest) > 1 else []

    def _classes(self, row: int) -> int:
        return int((self.targets[row] > 0).sum())

    def _order(self) -> list[int]:
        """Return the targets of which images were found, those with the shortest way first, where that can be told."""
        found = [row for row, each in enumerate(self.rates) if each.value > 0]
        return [*self._ranked, *(row for row in found if row not in self._ranked)]

    def _chosen(self, order: Sequence[int], shown: Sequence[int]) -> str:
        """Return which of all targets are shown, with a space before it; nothing if all are."""
        if len(order) == len(shown):
            return ""
        shortest = " with the shortest ways" if len(self._ranked) >= len(shown) else ""
        return f" Of {len(order)} targets {len(shown)}{shortest}."

    def _spoken(self, row: int) -> str:
        wanted = (self.targets[row] > 0).nonzero()[:, 0].tolist()
        *others, last = (self.class_names[k] for k in wanted)
        return f"{', '.join(others)} and {last}" if others else last

    def _panel(self, row: int) -> Panel:
        assert self.verification is not None
        probs, wanted = self.verification.probs[row], self.targets[self.asked[row]] > 0
        shares = " / ".join(percent(float(probs[k])) for k in wanted.nonzero()[:3, 0].tolist())
        return Panel(label=f"{self.target_names[int(self.asked[row])]}: {shares}", pixels=self.images[row])

    def _mark(self, row: int) -> str:
        agrees = self.oracle_agrees
        return _DOUBTED if agrees is not None and not agrees[row] else ""

    def _other(self, row: int) -> str:
        """Return the class nearest to the oracle's mind that is none of the target's."""
        assert self.verification is not None
        assert self.verification.oracle_probs is not None
        others = self.verification.oracle_probs[row].masked_fill(self.targets[self.asked[row]] > 0, -1)
        return self.class_names[int(others.argmax())]

    def _cells(self, row: int) -> list[tuple[int, int]]:
        """Return where a target stands in the atlas: a pair at both its places, anything else nowhere."""
        wanted = (self.targets[row] > 0).nonzero()[:, 0].tolist()
        if len(wanted) != 2 or self.targets[row][wanted[0]] != self.targets[row][wanted[1]]:
            return []
        return [(wanted[0], wanted[1]), (wanted[1], wanted[0])]

    def _atlas(self) -> PictureMatrix:
        """Return the most typical image of each pair, each leading to the others."""
        groups = [self._group(row) for row in range(len(self.targets))]
        typical = f"the most typical image, by {' and by '.join(self._typical_by)}," if self._typical_by else "an image"
        if any(group.cells for group in groups):
            caption = (
                f"For each pair of classes {typical} that the classifier holds for half one and half the other; empty "
                "where none was found or asked for."
            )
        else:
            caption = f"For each target {typical} that the classifier holds for it, and others."
        return PictureMatrix(
            name="atlas",
            title="The atlas of frontiers",
            caption=f"{caption} Framed: the oracle does not have the target's classes first, so that only the "
            "classifier believes it." + self._blamed(self.never_drawn),
            draw=lambda: self._draw_atlas(groups),
            row_labels=self.class_names,
            column_labels=self.class_names,
            groups=groups,
        )

    def _group(self, row: int) -> PictureGroup:
        rows = self.typical(row).tolist()
        estimate, way, oracle = self.rates[row], self.ways[row], self.oracle_rates
        note = f"{percent(estimate.value)} of {estimate.n:,} images are within {self.tolerance:g} of the target."
        if way is not None:
            note += f" The way between the classes is {way.value:.1f} long."
        if oracle is not None and (theirs := oracle[row]) is not None:
            note += f" The oracle has the same classes first in {percent(theirs.value)} of them."
        if oracle is not None and not self.deniable[row]:
            note += " Of all classes the oracle cannot have others first, so it says nothing here."
        if len(rows) > self.shown:
            note += f" Shown: {self.shown} of {len(rows)}{', the most typical' if self._typical_by else ''}."
        nothing = "No image was found within the tolerance, which says something too."
        return PictureGroup(
            title=self.target_names[row],
            note=note if rows else nothing + self._blamed(self._never_drawn([row])),
            cells=self._cells(row),
            panels=[self._panel(each) for each in rows[: self.shown]],
            marks=[self._mark(each) for each in rows[: self.shown]],
        )

    def _draw_atlas(self, groups: Sequence[PictureGroup]) -> Drawing:
        covers = {cell: group for group in groups if group.panels for cell in group.cells}
        return picture_matrix(
            {cell: group.panels[0].pixels for cell, group in covers.items()},
            row_labels=self.class_names,
            column_labels=self.class_names,
            marked={cell: bool(group.marks[0]) for cell, group in covers.items()},
        )

    def _draw_examples(self, targets: Sequence[int]) -> Drawing:
        rows = [self.typical(row)[:_COLLAGE_COLUMNS] for row in targets]
        agrees = self.oracle_agrees
        doubted = torch.zeros(len(self.asked), dtype=torch.bool) if agrees is None else ~agrees
        marks = [[self._other(each) if doubted[each] else "" for each in row.tolist()] for row in rows]
        return collage(
            [self.images[row] for row in rows], row_labels=[self.target_names[row] for row in targets], marks=marks
        )

    def _draw_ways(self, targets: Sequence[int]) -> Drawing:
        ways = [way for row in targets if (way := self.ways[row]) is not None]
        return ranking(
            torch.tensor([way.value for way in ways]),
            torch.tensor([(way.low, way.high) for way in ways]),
            names=[self.target_names[row] for row in targets],
            x_label="length of the way, units of the prior's deviation",
        )
