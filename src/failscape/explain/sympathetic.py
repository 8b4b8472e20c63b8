"""Latent sympathetic examples: the smallest meaningful change that puts a mistake right."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, final, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.explain.method import BatchedMethod
from failscape.explain.perturbed import LatentBank, PerturbedImages, log_odds, logit_margin
from failscape.explain.sympathetic_result import UNKNOWN, SympatheticResult
from failscape.generators import Generator, require_autoencoder
from failscape.search import (
    Descent,
    MinimalNorm,
    Objective,
    descend_fixed_step,
    grid_points,
    least_change,
    minimal_norm,
    search_grid,
)

Mode = Literal["boundary", "confident", "fixed-step"]
Smallest = Literal["latent", "image"]
# The guard averages over so many draws of noise an image.
_GUARD_DRAWS = 2
# The path from the image to its example is shown at so many even steps, both ends included.
_LINE_POINTS = 11
# Steps of the search for the least changed image, two gradients each.
_LEAST_STEPS = 50


@final
class SympatheticExamples(BatchedMethod[SympatheticResult]):
    r"""What must be added to this image so that the classifier takes it for class `y`?

    Finds the smallest latent perturbation $\epsilon$ for which

    $$x' = g(e(x) + \epsilon) + x - g(e(x))$$

    is classified as `y`, with encoder $e$ and generator $g$; $\epsilon = 0$ gives the image itself. For a
    misclassified image and its true class, $x'$ is a latent sympathetic example (LSE); for a correctly classified
    image and another class, a latent adversarial example (LAE).

    The classifier is always asked about the 8-bit form of $x'$, so what is found survives saving.

    Args:
        mode: "boundary" finds the smallest change after which the class is the most probable one: it shows where
            the boundary is. "confident" finds the smallest change after which it has at least the probability
            `confidence`: it shows what would make the image one of that class. "fixed-step" is the published
            procedure, gradient descent on the cross-entropy until the first success, kept as the baseline.
        smallest: what a change is to be small in: "latent", the length of $\epsilon$, as published; or "image", what
            it changes of the image, pixel by pixel, which leaves untouched what need not change. The second goes on
            from the first, with 100 more gradients an image.
        confidence: the probability to reach in mode "confident", in (0, 1).
        guard: standard deviation of the pixel noise under which mode "confident" wants the probability too, on
            average over two draws an image; 0 for none. Without it an exact search ends on images that only this
            classifier is sure of.
        margin: how far beyond the boundary to go, in logits: more than one grey value's worth, so that an image
            computed once more, in another batch or on another machine, keeps its class.
        candidates: other latents of the wanted class that are tried as starts for each image.
        bank: latents from which these are chosen, drawn from the prior and classified; where the search fails it is
            tried again with all of them.
        anchors: labelled images whose encodings make the bank instead.
        starts: descents an image and round.
        steps: gradient evaluations a descent at most.
        rounds: rounds of random restarts at most.
        step: $\lambda$ of mode "fixed-step".
        max_steps: where mode "fixed-step" gives up.
        plane: points along each side of the map of a two-dimensional latent space, 0 for no maps.
        grid: points along each side of the grid that says, for a two-dimensional latent space, whether the class
            of an image where nothing was found can be reached at all; 0 for none.
        batch_size: images that are searched at the same time.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if the generator has no encoder.

    Example:
        >>> images = failscape.load_images("embedded:mnist-test")
        >>> classifier = failscape.load_classifier("embedded:mnist-clean")
        >>> vae = failscape.load_generator("embedded:mnist-vae-10d")
        >>> mistakes = images.select(classifier.predict(images.x) != images.y)
        >>> rng = torch.Generator().manual_seed(0)
        >>> result = SympatheticExamples()(classifier, vae, mistakes.x, mistakes.y, rng=rng)
        >>> result.summary["success"]
        1.0

    References:
        "Explaining the Mistakes of Neural Networks with Latent Sympathetic Examples", eq. 1 and 2.
    """

    result_type: ClassVar[type[SympatheticResult]] = SympatheticResult

    def __init__(
        self,
        *,
        mode: Mode = "boundary",
        smallest: Smallest = "latent",
        confidence: float = 0.9,
        guard: float = 0.2,
        margin: float = 0.05,
        candidates: int = 16,
        bank: int = 2048,
        anchors: ImageSet | None = None,
        starts: int = 3,
        steps: int = 16,
        rounds: int = 1,
        step: float = 0.1,
        max_steps: int = 500,
        plane: int = 48,
        grid: int = 200,
        batch_size: int = 256,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"Expected `mode` to be one of {', '.join(get_args(Mode))}, but got {mode!r}.")
        if smallest not in get_args(Smallest):
            raise ValueError(f"Expected `smallest` to be one of {', '.join(get_args(Smallest))}, but got {smallest!r}.")
        if smallest == "image" and mode == "fixed-step":
            raise ValueError(
                'Expected `smallest` to be "latent" in mode "fixed-step", which stops at the first success, but got '
                '"image". Set another `mode`.'
            )
        if not 0 < confidence < 1:
            raise ValueError(f"Expected `confidence` to be between 0 and 1, but got {confidence}.")
        if min(margin, guard) < 0 or not step > 0:
            raise ValueError(f"Expected `margin` and `guard` >= 0 and `step` > 0, but got {margin}, {guard}, {step}.")
        counts = {
            "candidates": candidates,
            "bank": bank,
            "starts": starts,
            "steps": steps,
            "max_steps": max_steps,
        }
        for name, count in {**counts, "batch_size": batch_size}.items():
            if count < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, but got {count}.")
        if rounds < 0 or min(plane, grid) < 0 or 1 in (plane, grid):
            raise ValueError(
                "Expected `rounds` >= 0, and `plane` and `grid` to be 0 or at least 2, but got "
                f"{rounds}, {plane}, {grid}."
            )
        self.mode: Mode = mode
        self.smallest: Smallest = smallest
        self.confidence = confidence
        self.guard = guard
        self.margin = margin
        self.candidates = candidates
        self.bank = bank
        self.anchors = anchors
        self.starts = starts
        self.steps = steps
        self.rounds = rounds
        self.step = step
        self.max_steps = max_steps
        self.plane = plane
        self.grid = grid
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
    ) -> SympatheticResult:
        """Search for one batch."""
        autoencoder = require_autoencoder(generator, "sympathetic examples")
        classifier.require_gradients("sympathetic examples", "Wrap a PyTorch network instead of a callable.")
        perturbed = PerturbedImages(classifier, autoencoder, x, y)
        noise = self._noise(x, rng)
        found = self._search(perturbed, noise, rng)
        rows = torch.arange(len(x))
        fractions = torch.linspace(0, 1, _LINE_POINTS)
        along = (fractions[None, :, None] * found.epsilon[:, None]).flatten(0, 1)
        line = perturbed.probs(along, rows.repeat_interleave(_LINE_POINTS)).unflatten(0, (len(x), _LINE_POINTS))
        result = SympatheticResult(
            images=perturbed.images(found.epsilon, rows).detach(),
            originals=x,
            reconstructions=perturbed.reconstructions,
            z=perturbed.z,
            epsilon=found.epsilon,
            target=y,
            found=found.valid,
            reachable=self._reachable(perturbed, noise, found.valid),
            steps=found.steps,
            path=found.path,
            line=line,
            prior_length=_prior_length(generator),
            mode=self.mode,
            smallest=self.smallest,
            confidence=self.confidence if self.mode == "confident" else 0.0,
            class_names=classifier.class_names,
            ids=ids,
        )
        return self._with_planes(result, perturbed) if self.plane and generator.latent_dim == 2 else result

    def reduce(self, partials: Sequence[SympatheticResult]) -> SympatheticResult:
        """Join the batches; shorter paths stay at their last point."""
        longest = max(partial.path.shape[1] for partial in partials)
        return super().reduce([partial.with_path_length(longest) for partial in partials])

    def _search(self, perturbed: PerturbedImages, noise: Tensor, rng: torch.Generator) -> Descent | MinimalNorm:
        if self.mode == "fixed-step":
            return descend_fixed_step(
                perturbed.stopped_loss, perturbed.origin, step=self.step, max_steps=self.max_steps
            )
        return self._minimal(perturbed, noise, rng)

    def _minimal(self, perturbed: PerturbedImages, noise: Tensor, rng: torch.Generator) -> MinimalNorm:
        """Search from the nearest latents of the class, and where that fails from every latent of the bank."""

        def objective(epsilon: Tensor, rows: Tensor) -> Tensor:
            views = _views(perturbed.classifier, perturbed.saved(epsilon, rows), noise[:, rows])
            return self._score(views, perturbed.y[rows]) - self.margin

        if self.anchors is not None:
            bank = LatentBank.of_images(perturbed, self.anchors)
        else:
            bank = LatentBank.of_prior(perturbed, self.bank, rng=rng)
        search = partial(minimal_norm, rng=rng, starts=self.starts, steps=self.steps, rounds=self.rounds)
        found = search(objective, bank.candidates(perturbed.z, perturbed.y, self.candidates))
        missed = (~found.valid).nonzero()[:, 0]
        if len(missed):
            candidates = bank.candidates(perturbed.z[missed], perturbed.y[missed], self.bank)
            again = search(lambda epsilon, rows: objective(epsilon, missed[rows]), candidates)
            found = found.with_rows(missed, again)
        return self._least(perturbed, objective, found) if self.smallest == "image" else found

    def _least(self, perturbed: PerturbedImages, objective: Objective, found: MinimalNorm) -> MinimalNorm:
        """Go on from what was found to what changes the image least."""
        # Where nothing has to change, nothing can change less.
        rows = (found.valid & found.epsilon.any(dim=1)).nonzero()[:, 0]
        least = least_change(
            lambda epsilon, chosen: objective(epsilon, rows[chosen]),
            lambda epsilon, chosen: perturbed.change(epsilon, rows[chosen]),
            found.epsilon[rows],
            steps=_LEAST_STEPS,
        )
        epsilon = found.epsilon.index_copy(0, rows, least)
        return replace(
            found,
            epsilon=epsilon,
            steps=found.steps.index_add(0, rows, torch.full_like(rows, 2 * _LEAST_STEPS)),
            path=torch.cat([found.path, epsilon[:, None]], dim=1),
        )

    def _noise(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "J N C H W"]:
        """Draw the noise of the guard."""
        draws = _GUARD_DRAWS if self.mode == "confident" and self.guard else 0
        return self.guard * torch.randn(draws, *x.shape, generator=rng)

    def _score(self, views: Sequence[Tensor], wanted: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
        """Return how far images are within what the mode asks for, in logits.

        Args:
            views: logits of the images, then of the images under each noise, `(M, K)` each.
            wanted: their classes.
        """
        if self.mode != "confident":
            return logit_margin(views[0], wanted)
        plain, *noisy = (log_odds(logits, wanted) for logits in views)
        least = torch.minimum(plain, torch.stack(noisy).mean(dim=0)) if noisy else plain
        return least - math.log(self.confidence / (1 - self.confidence))

    def _reachable(
        self, perturbed: PerturbedImages, noise: Float[Tensor, "J N C H W"], found: Bool[Tensor, " N"]
    ) -> Int[Tensor, " N"]:
        """Say for each image whether its class can be reached: 1 yes, 0 no, UNKNOWN where that cannot be told."""
        reachable = torch.where(found, 1, UNKNOWN)
        missed = (~found).nonzero()[:, 0]
        if not self.grid or perturbed.z.shape[1] != 2 or not len(missed):
            return reachable
        groups = perturbed.same_images(missed)

        def scores(points: Float[Tensor, "P 2"]) -> Float[Tensor, "M P"]:
            # A latent is drawn once for all images, and an image classified once for all classes.
            drawn = perturbed.draw(points)
            scores = torch.empty(len(missed), len(points))
            for row, places in groups:
                views = _views(perturbed.classifier, perturbed.saved_from(drawn, row), noise[:, row, None])
                for place in places.tolist():
                    scores[place] = self._score(views, perturbed.y[missed[place]].expand(len(points)))
            return scores

        low, high = perturbed.box()
        grid = search_grid(scores, perturbed.z[missed], low, high, resolution=self.grid)
        reachable[missed] = grid.reachable.long()
        return reachable

    def _with_planes(self, result: SympatheticResult, perturbed: PerturbedImages) -> SympatheticResult:
        box_low, box_high = perturbed.box()
        shared = perturbed.draw(grid_points(box_low, box_high, self.plane))
        # A search may leave the box; its map then grows to hold its path, and is drawn for it alone.
        passed = result.z[:, None] + result.path
        lows = torch.minimum(box_low, passed.amin(dim=1))
        highs = torch.maximum(box_high, passed.amax(dim=1))
        classes, losses = [], []
        for row, (low, high, wanted) in enumerate(zip(lows, highs, perturbed.y.tolist(), strict=True)):
            fits = torch.equal(low, box_low) and torch.equal(high, box_high)
            drawn = shared if fits else perturbed.draw(grid_points(low, high, self.plane))
            with torch.no_grad():
                log_probs = perturbed.classifier(perturbed.saved_from(drawn, row)).log_softmax(dim=1)
            classes.append(log_probs.argmax(dim=1).to(torch.uint8).view(self.plane, self.plane))
            losses.append(-log_probs[:, wanted].view(self.plane, self.plane).half())
        extent = torch.stack([lows[:, 0], highs[:, 0], lows[:, 1], highs[:, 1]], dim=1)
        return result.with_planes(torch.stack(classes), torch.stack(losses), extent)


def _views(classifier: Classifier, images: Float[Tensor, "M C H W"], noise: Float[Tensor, "J L C H W"]) -> list[Tensor]:
    """Return the logits of images, and of the images under each noise."""
    return [classifier(images), *(classifier((images + each).clamp(0, 1)) for each in noise)]


def _prior_length(generator: Generator) -> float:
    """Return the root mean square length of a latent under the prior."""
    z = generator.sample_latents(4096, rng=torch.Generator().manual_seed(0))
    return z.square().sum(dim=1).mean().sqrt().item()
