"""Perturbation heat map: which region of the image has to change most often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.method import SHARED, BatchedMethod, Result
from failscape.explain.sympathetic import Mode, Smallest, SympatheticExamples
from failscape.figures import Figure, Finding, Panel, Plot, difference_map, image_grid, percent
from failscape.generators import Generator, require_autoencoder
from failscape.metrics import rate

_DEFINITIONS = {
    "images": "Images that were searched.",
    "success": "Share of images put right, as verified on the 8-bit image; only these enter the map. Interval: "
    "Wilson, 95 %.",
    "change": "Mean absolute change of a pixel between reconstruction and perturbed reconstruction, over the image.",
    "region": "Share of the image's area that holds half of all change; 0.5 would be a change spread evenly.",
    "standing_out": "Share of the image's area where the mean change of the images put right, root mean square over "
    "the colours, stands out: pixels above the threshold of least cross-entropy (Li's method).",
    "beyond_chance": "Largest ratio, over the pixels of the region that holds half of all change, of the mean change "
    "to that which random latent moves make there that change each image as much: 1 means that the region is no more "
    "than where images vary.",
    "id": "The image's name in its set.",
    "wanted": "The class aimed at.",
    "mean_change": "Mean absolute change of this image's pixels.",
}


@final
@dataclass(frozen=True, kw_only=True)
class HeatmapResult(Result):
    """What `PerturbationHeatmap` found.

    Attributes:
        images: the perturbed images, 8-bit values in [0, 1].
        change: g(e(x) + ε) - g(e(x)), one an image, in [-1, 1].
        chance: the same for a random ε of the same length, scaled to change each image as much.
        target: the wanted classes.
        confidence: the probability asked for; 0 where none was.
        class_names: K names.
        ids: the images' names.
    """

    origin = "test"

    change: Float[Tensor, "N C H W"]
    chance: Float[Tensor, "N C H W"]
    target: Int[Tensor, " N"]
    confidence: float
    class_names: tuple[str, ...] = field(metadata=SHARED)
    ids: tuple[str, ...]

    @property
    def made_from(self) -> tuple[str, ...]:
        """The images that were given."""
        return self.ids

    @property
    def success(self) -> Bool[Tensor, " N"]:
        """Whether the verified 8-bit image is of the wanted class, with the probability asked for."""
        assert self.verification is not None
        wanted = self.verification.probs.gather(1, self.target[:, None])[:, 0]
        return (self.verification.prediction == self.target) & (wanted >= self.confidence)

    @property
    def heatmap(self) -> Float[Tensor, "H W"]:
        """Mean absolute change over the images put right and the channels; zero where none was."""
        return _mean_map(self.change[self.success].abs())

    @property
    def signed(self) -> Float[Tensor, "H W"]:
        """Mean signed change: positive where something is added."""
        return _mean_map(self.change[self.success])

    def region(self, share: float = 0.5) -> Bool[Tensor, "H W"]:
        """Return the smallest set of pixels that holds `share` of all change.

        Args:
            share: in (0, 1).
        """
        if not 0 < share < 1:
            raise ValueError(f"Expected `share` to be between 0 and 1, but got {share}.")
        heat = self.heatmap
        values, order = heat.flatten().double().sort(descending=True)
        held = (values.cumsum(0) - values < share * values.sum()) & (values > 0)
        mask = torch.zeros(heat.numel(), dtype=torch.bool)
        mask[order[held]] = True
        return mask.view_as(heat)

    @property
    def consistent(self) -> Float[Tensor, "H W"]:
        """Size of the mean change, root mean square over the channels: what is added here and removed there cancels."""
        changed = self.change[self.success]
        return (changed.sum(dim=0) / max(len(changed), 1)).square().mean(dim=0).sqrt()

    @property
    def standing_out(self) -> Bool[Tensor, "H W"]:
        """The pixels whose mean change stands out from the rest, by Li's method, which has no parameter.

        Empty where the mean change is the same everywhere. `region` is of all change, to and fro, and its size follows
        from the share asked for.
        """
        return above_li_threshold(self.consistent)

    @property
    def summary(self) -> dict[str, float]:
        """How concentrated the change is."""
        success = rate(self.success)
        summary: dict[str, float] = {"images": float(success.n), "success": success.value}
        summary |= {"success_low": success.low, "success_high": success.high, "success_n": float(success.n)}
        region = self.region()
        # Images that need no change leave the map empty: there is no region then.
        if region.any():
            summary["change"] = self.heatmap.mean().item()
            summary["region"] = region.float().mean().item()
            summary["standing_out"] = self.standing_out.float().mean().item()
            summary["beyond_chance"] = self._beyond_chance[region].max().item()
        return summary

    @property
    def table(self) -> pa.Table:
        """One row an image."""
        return pa.table(
            {
                "id": list(self.ids),
                "wanted": [self.class_names[k] for k in self.target.tolist()],
                "success": self.success.tolist(),
                "mean_change": self.change.abs().flatten(1).mean(dim=1).numpy(),
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """The map as a whole, its signed form, and one a class."""
        if not self.success.any():
            return []
        return [
            Plot(
                name="heatmap",
                title="What is added and removed on average",
                caption="Mean change g(e(x) + ε) − g(e(x)) over all images that were put right. A region that "
                "stands out is one where the classifier's training data may lack something.",
                draw=lambda: difference_map(self.signed, label="mean change of the grey value"),
            ),
            Plot(
                name="classes",
                title="By wanted class",
                caption="The same, for the images of each class that were put right; “all” is every one. Their "
                "number stands beside the class.",
                draw=self._draw_classes,
            ),
        ]

    @property
    def findings(self) -> Sequence[Finding]:
        """Where the images are changed."""
        region = self.region()
        if not region.any():
            return ()
        sentence = (
            f"Half of all that is changed to put {int(self.success.sum()):,} images right falls on "
            f"{percent(region.float().mean().item())} of the picture's area; the pixel that stands out "
            f"most changes {self._beyond_chance[region].max().item():.1f} times as much as it would by chance."
        )
        panels = (
            Panel(label="mean change", pixels=self.signed[None], signed=True),
            Panel(label="that area, in white", pixels=region[None].float()),
        )
        return (Finding(sentence=sentence, panels=panels),)

    @property
    def _beyond_chance(self) -> Float[Tensor, "H W"]:
        return self.heatmap / _mean_map(self.chance[self.success].abs()).clamp_min(1e-6)

    def _draw_classes(self) -> Drawing:
        maps, labels = [self.signed], [f"all ({int(self.success.sum())})"]
        for k, name in enumerate(self.class_names):
            rows = self.success & (self.target == k)
            if rows.any():
                maps.append(_mean_map(self.change[rows]))
                labels.append(f"{name} ({int(rows.sum())})")
        columns = 4
        rows_needed = -(-len(maps) // columns)
        blank = torch.zeros_like(maps[0])
        maps += [blank] * (rows_needed * columns - len(maps))
        labels += [""] * (rows_needed * columns - len(labels))
        cells = torch.stack(maps)[:, None].unflatten(0, (rows_needed, columns))
        return image_grid(cells, cell_labels=labels, signed_columns=range(columns))


@final
class PerturbationHeatmap(BatchedMethod[HeatmapResult]):
    r"""Which image region has to change most often to put mistakes right?

    Averages $g(e(x) + \epsilon) - g(e(x))$ over sympathetic examples, beside random latent moves that change each image
    as much: a region beyond chance points to what the training data lacks. Of all that would put a mistake right, what
    changes the image least is averaged, so that the map is not of what merely comes along.

    Args:
        mode: of the sympathetic examples that are averaged.
        smallest: of them, too; by default "image", but "latent" in mode "fixed-step", which knows no other.
        confidence: the probability to reach in mode "confident", in (0, 1).
        batch_size: images that are searched at the same time.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if the generator has no encoder.

    References:
        "Explaining the Mistakes of Neural Networks with Latent Sympathetic Examples", section 5.
    """

    result_type: ClassVar[type[HeatmapResult]] = HeatmapResult

    def __init__(
        self,
        *,
        mode: Mode = "confident",
        smallest: Smallest | None = None,
        confidence: float = 0.9,
        batch_size: int = 256,
    ) -> None:
        if smallest is None:
            smallest = "latent" if mode == "fixed-step" else "image"
        self.search = SympatheticExamples(
            mode=mode,
            smallest=smallest,
            confidence=confidence,
            plane=0,
            batch_size=batch_size,
        )
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
    ) -> HeatmapResult:
        """Search for one batch and measure the changes."""
        require_autoencoder(generator, "perturbation heat maps")
        found = self.search.map(classifier, generator, x, y, ids=ids, rng=rng)
        direction = torch.randn(found.epsilon.shape, generator=rng)
        random = direction / direction.norm(dim=1, keepdim=True) * found.norm[:, None]
        with torch.no_grad():
            start = generator(found.z)
            change = generator(found.z + found.epsilon) - start
            chance = generator(found.z + random) - start
        # The least of all changes would always be less than a random one: what is compared is where, not how much.
        much, by_chance = (each.abs().mean(dim=(1, 2, 3), keepdim=True) for each in (change, chance))
        chance *= much / by_chance.clamp_min(1e-12)
        return HeatmapResult(
            images=found.images,
            change=change,
            chance=chance,
            target=y,
            confidence=found.confidence,
            class_names=classifier.class_names,
            ids=ids,
        )


def above_li_threshold(values: Float[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    r"""Return where values are above the threshold of least cross-entropy between them and the means of both groups.

    That is the one of largest $s_0 \log \mu_0 + s_1 \log \mu_1$ with $s$ and $\mu$ for the groups' sums and means.
    Every value is tried as the threshold, without a histogram. Nothing is above where all values are equal. Why this
    one: docs/methods/perturbation-heatmap.md.

    Args:
        values: finite and not negative; zero means nothing.

    References:
        Li and Lee, "Minimum cross entropy thresholding", Pattern Recognition, 1993.

    Example:
        >>> above_li_threshold(torch.tensor([[0.1, 0.2], [0.9, 0.0]])).tolist()
        [[False, False], [True, False]]
    """
    assert bool((values >= 0).all() & values.isfinite().all()), "sizes are finite and not negative"
    ordered = values.flatten().double().sort().values
    n = len(ordered)
    # What differs by rounding alone is equal.
    if n < 2 or ordered[-1] - ordered[0] <= 1e-6 * ordered[-1]:
        return torch.zeros_like(values, dtype=torch.bool)
    below = torch.arange(1, n, dtype=torch.float64)
    sums = ordered.cumsum(0)
    lower, upper = sums[:-1], sums[-1] - sums[:-1]
    told = torch.xlogy(lower, lower / below) + torch.xlogy(upper, upper / (n - below))
    # Equal values are not split.
    best = torch.where(ordered[1:] > ordered[:-1], told, -torch.inf).argmax()
    return values.double() > ordered[best]


def _mean_map(values: Float[Tensor, "N C H W"]) -> Float[Tensor, "H W"]:
    return values.sum(dim=0).mean(dim=0) / max(len(values), 1)
