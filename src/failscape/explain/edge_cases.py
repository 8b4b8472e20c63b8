"""Edge cases: pairs of images on both sides of a class boundary, for a person to label."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.method import SHARED, BatchedMethod, Result, to_8_bits
from failscape.explain.perturbed import LatentBank, PerturbedImages, logit_margin
from failscape.figures import Case, Figure, Gallery, Panel, Plot, image_grid
from failscape.generators import Generator, require_autoencoder
from failscape.metrics import rate
from failscape.search import first_crossing, minimal_norm

# Logits that are closer than this are taken for equal.
_TIE = 2e-5
# Distances from the crossing at which a clear image is looked for, on either side.
_DISTANCES = 9

_DEFINITIONS = {
    "images": "Images from which boundaries were looked for.",
    "pairs": "Pairs of images found, one just outside the wanted class and one just inside.",
    "not_crossed": "Points of the boundary that were looked for in vain: the line met no crossing within reach, or the "
    "image was inside already.",
    "success": "Share of the pairs whose two 8-bit images the classifier puts on different sides, as claimed, no "
    "farther apart than the tolerance. Interval: Wilson, 95 %.",
    "gap": "Largest distance between the two perturbations of a pair, relative to the length ‖ε‖ of the inner one.",
    "norm": "Euclidean length ‖ε‖ of the inner perturbation, in units of the latent space.",
    "oracle_inside": "Share of the pairs where the oracle puts both images inside the wanted class.",
    "oracle_outside": "Share of the pairs where the oracle puts both images outside the wanted class.",
    "id": "Name of the pair: the image's name and the number of the crossing.",
    "wanted": "The class whose boundary is crossed.",
    "outside": "What the classifier says of the image just outside.",
    "inside": "What the classifier says of the image just inside.",
    "change": "Inner image less outer image.",
}


@final
@dataclass(frozen=True, kw_only=True)
class EdgeCasesResult(Result):
    """What `EdgeCases` found, one row a pair.

    Attributes:
        images: two a pair, first the one just outside the wanted class, then the one just inside, `(2 M, C, H, W)`.
        epsilon_outside: latent perturbation of the outer image.
        epsilon_inside: latent perturbation of the inner image.
        target: the class whose boundary is crossed.
        searched: images from which boundaries were looked for, one value a batch.
        looked_for: points of the boundary that were looked for, one value a batch.
        tolerance: the largest relative gap allowed.
        class_names: K names.
        ids: one a pair.
    """

    origin = "frontier"

    epsilon_outside: Float[Tensor, "M D"]
    epsilon_inside: Float[Tensor, "M D"]
    target: Int[Tensor, " M"]
    searched: Int[Tensor, " B"]
    looked_for: Int[Tensor, " B"]
    tolerance: float
    class_names: tuple[str, ...] = field(metadata=SHARED)
    ids: tuple[str, ...]

    @property
    def made_from(self) -> tuple[str, ...]:
        """The image from which the boundary was looked for, of both sides of all its crossings."""
        return tuple(pair.rpartition("/")[0] for pair in self.ids for _ in range(2))

    @property
    def gap(self) -> Float[Tensor, " M"]:
        """Distance of the two perturbations relative to the length of the inner one."""
        apart: Tensor = (self.epsilon_inside - self.epsilon_outside).norm(dim=1) / self.epsilon_inside.norm(dim=1)
        return apart

    @property
    def success(self) -> Bool[Tensor, " M"]:
        """Whether the verified 8-bit images lie on both sides, no farther apart than the tolerance."""
        assert self.verification is not None
        inside = self.verification.prediction.view(-1, 2) == self.target[:, None]
        return ~inside[:, 0] & inside[:, 1] & (self.gap <= self.tolerance)

    @property
    def summary(self) -> dict[str, float]:
        """Pairs, gaps, and the oracle's view of them."""
        success = rate(self.success)
        summary: dict[str, float] = {"images": float(self.searched.sum()), "pairs": float(len(self.ids))}
        summary["not_crossed"] = float(self.looked_for.sum() - len(self.ids))
        if not self.ids:
            return summary
        summary |= {"success": success.value, "success_low": success.low, "success_high": success.high}
        summary |= {"success_n": float(success.n), "gap": self.gap.max().item()}
        summary["norm"] = self.epsilon_inside.norm(dim=1).mean().item()
        assert self.verification is not None
        prediction = self.verification.oracle_prediction
        if prediction is not None:
            inside = prediction.view(-1, 2) == self.target[:, None]
            summary["oracle_inside"] = inside.all(dim=1).float().mean().item()
            summary["oracle_outside"] = (~inside).all(dim=1).float().mean().item()
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a pair."""
        assert self.verification is not None
        says = self.verification.prediction.view(-1, 2).tolist()
        names = self.class_names
        return pa.table(
            {
                "id": list(self.ids),
                "wanted": [names[k] for k in self.target.tolist()],
                "outside": [names[outside] for outside, _ in says],
                "inside": [names[inside] for _, inside in says],
                "success": self.success.tolist(),
                "gap": self.gap.numpy(),
                "norm": self.epsilon_inside.norm(dim=1).numpy(),
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """A sheet of pairs, and every pair."""
        if not self.ids:
            return []
        sheet = Plot(
            name="pairs",
            title="Two sides of a boundary",
            caption="In each row an image just outside the wanted class, the one just inside, and their difference: "
            "nearly the same picture to a person, two answers from the classifier.",
            draw=self._draw_pairs,
        )
        gallery = Gallery(
            name="cases",
            title="Every pair",
            caption="Two images that hardly differ, and two answers: which label would a person give?",
            class_names=self.class_names,
            cases=[self._case(row) for row in range(len(self.ids))],
            definitions=_DEFINITIONS,
        )
        return [sheet, gallery]

    def _case(self, row: int) -> Case:
        assert self.verification is not None
        names = self.class_names
        outer, inner = self.images[2 * row], self.images[2 * row + 1]
        outside, inside = (names[k] for k in self.verification.prediction[2 * row : 2 * row + 2].tolist())
        probabilities = {
            "just outside": self.verification.probs[2 * row],
            "just inside": self.verification.probs[2 * row + 1],
        }
        if self.verification.oracle_probs is not None:
            probabilities["oracle, inside"] = self.verification.oracle_probs[2 * row + 1]
        good = bool(self.success[row])
        return Case(
            id=self.ids[row],
            heading=f"{outside} | {inside}",
            verdict=f"One grey value here and there turns {outside} into {inside}."
            if good
            else "Failed: after rounding to 8 bits the two images are not on the two sides that were claimed.",
            good=good,
            panels=(
                Panel(label="just outside", pixels=outer),
                Panel(label="just inside", pixels=inner),
                Panel(label="change", pixels=inner - outer, signed=True),
            ),
            probabilities=probabilities,
            numbers={"gap": f"{self.gap[row]:.1e}", "norm": f"{self.epsilon_inside[row].norm():.3f}"},
        )

    def _draw_pairs(self) -> Drawing:
        shown = torch.linspace(0, len(self.ids) - 1, min(8, len(self.ids))).long()
        pairs = self.images.unflatten(0, (-1, 2))[shown]
        cells = torch.cat([pairs, pairs[:, 1:] - pairs[:, :1]], dim=1)
        assert self.verification is not None
        says = self.verification.prediction.view(-1, 2)[shown].tolist()
        return image_grid(
            cells,
            row_labels=[f"{self.class_names[a]} | {self.class_names[b]}" for a, b in says],
            column_labels=["just outside", "just inside", "change"],
            signed_columns=[2],
        )


@final
class EdgeCases(BatchedMethod[EdgeCasesResult]):
    r"""Which images straddle the boundary of class `y`?

    From each image the nearest point of the boundary is found in the latent space; then the boundary is crossed
    there and in directions around it, and each crossing is bisected until the two sides are no farther apart than
    `tolerance` relative to $\|\epsilon\|$. The verdicts are those on 8-bit images.

    Args:
        crossings: points of the boundary to look for an image.
        spread: how far the other directions turn away from the nearest one, as the tangent of the angle.
        reach: how far out to look in those directions, in multiples of the smallest norm.
        tolerance: the largest relative gap between the two sides.
        candidates: other latents of the wanted class that are tried as starts for each image.
        batch_size: images that are searched at the same time.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if the generator has no encoder.

    References:
        "Explaining the Mistakes of Neural Networks with Latent Sympathetic Examples", section 5.
    """

    result_type: ClassVar[type[EdgeCasesResult]] = EdgeCasesResult

    def __init__(
        self,
        *,
        crossings: int = 4,
        spread: float = 0.5,
        reach: float = 2.0,
        tolerance: float = 1e-3,
        candidates: int = 32,
        batch_size: int = 256,
    ) -> None:
        if crossings < 1 or candidates < 1 or batch_size < 1:
            raise ValueError(
                "Expected `crossings`, `candidates` and `batch_size` to be at least 1, but got "
                f"{crossings}, {candidates}, {batch_size}."
            )
        if not 0 < tolerance < 1 or spread < 0 or reach <= 1:
            raise ValueError(
                "Expected `tolerance` between 0 and 1, `spread` >= 0 and `reach` > 1, but got "
                f"{tolerance}, {spread}, {reach}."
            )
        self.crossings = crossings
        self.spread = spread
        self.reach = reach
        self.tolerance = tolerance
        self.candidates = candidates
        self.batch_size = batch_size

    def map(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> EdgeCasesResult:
        """Find the pairs of one batch."""
        autoencoder = require_autoencoder(generator, "edge cases")
        classifier.require_gradients("edge cases", "Wrap a PyTorch network instead of a callable.")
        perturbed = PerturbedImages(classifier, autoencoder, x, y)
        bank = LatentBank.of_prior(perturbed, 64 * self.candidates, rng=rng)
        candidates = bank.candidates(perturbed.z, y, self.candidates)

        def margin(epsilon: Tensor, rows: Tensor) -> Tensor:
            return logit_margin(perturbed.logits(epsilon, rows), y[rows])

        nearest = minimal_norm(margin, candidates, rng=rng)

        # An image that is inside already has no boundary between itself and the class.
        rows = (nearest.valid & (nearest.epsilon.norm(dim=1) > 0)).nonzero()[:, 0]
        ends = self._directions(nearest.epsilon[rows], rng)
        owners = rows.repeat_interleave(self.crossings)
        # The scan's step is already a part of the line; the bisection does the rest.
        scan = 16
        bisections = math.ceil(math.log2(self.reach / (scan * self.tolerance) * 8))
        crossing = first_crossing(margin, ends, owners, scan=scan, bisections=bisections)
        found = crossing.found
        owners = owners[found]
        outside, outer = self._clearly(perturbed, crossing.outside[found], owners, inside=False)
        inside, inner = self._clearly(perturbed, crossing.inside[found], owners, inside=True)
        number = (torch.arange(len(found)) % self.crossings)[found].tolist()
        return EdgeCasesResult(
            images=torch.stack([outer, inner], dim=1).flatten(0, 1),
            epsilon_outside=outside,
            epsilon_inside=inside,
            target=y[owners],
            searched=torch.tensor([len(x)]),
            looked_for=torch.tensor([len(x) * self.crossings]),
            tolerance=self.tolerance,
            class_names=classifier.class_names,
            ids=tuple(f"{ids[row]}/{k}" for row, k in zip(owners.tolist(), number, strict=True)),
        )

    @torch.no_grad()
    def _clearly(
        self, perturbed: PerturbedImages, epsilon: Float[Tensor, "P D"], rows: Int[Tensor, " P"], *, inside: bool
    ) -> tuple[Float[Tensor, "P D"], Float[Tensor, "P C H W"]]:
        """Return perturbations on one side of the boundary, and their 8-bit images.

        Computed once more in another batch an image may differ in a grey value, which is enough to cross over. So
        the very images that are returned are classified, at a few distances from the crossing, and the nearest one
        that lies clearly on its side is taken.
        """
        away = self.tolerance * torch.linspace(0, 0.4, _DISTANCES) * (1 if inside else -1)
        choices = (1 + away)[None, :, None] * epsilon[:, None]
        owners = rows.repeat_interleave(_DISTANCES)
        images = to_8_bits(perturbed.images(choices.flatten(0, 1), owners))
        logits = torch.cat([perturbed.classifier(part) for part in images.split(1000)])
        margin = logit_margin(logits, perturbed.y[owners]).unflatten(0, (len(rows), _DISTANCES))
        clear = margin > _TIE if inside else margin < -_TIE
        chosen = torch.arange(len(rows)) * _DISTANCES + clear.int().argmax(dim=1)
        return choices.flatten(0, 1)[chosen], images[chosen]

    def _directions(self, nearest: Float[Tensor, "M D"], rng: torch.Generator) -> Float[Tensor, "P D"]:
        """Return ends of lines: through the nearest point of the boundary first, then turned away from it."""
        length = nearest.norm(dim=1, keepdim=True)[:, None]
        noise = torch.randn(len(nearest), self.crossings, nearest.shape[1], generator=rng)
        noise[:, 0] = 0
        along = nearest[:, None] / length
        across = noise - (noise * along).sum(dim=2, keepdim=True) * along
        across = self.spread * across / across.norm(dim=2, keepdim=True).clamp_min(1e-12)
        direction = along + across
        ends: Tensor = self.reach * length * direction / direction.norm(dim=2, keepdim=True)
        return ends.flatten(0, 1)
