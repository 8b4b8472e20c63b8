"""Real directions: do real images fail along the directions in which generated ones do?"""

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier, classifier_features
from failscape.explain.direction_names import Effect, told_first
from failscape.explain.method import Method, to_8_bits
from failscape.explain.real_directions_result import RealDirectionsResult, in_order
from failscape.explain.shared_influence import shared_influence
from failscape.explain.style_gradients import Influence, ScoreName, known_score
from failscape.explain.style_population import layer_name, require_class_styles
from failscape.generators import Generator, Inversion, StyleGenerator, invert
from failscape.generators.inversion import Space
from failscape.metrics import MEASUREMENTS, difference_of_means

_BATCH = 100
# Differences of the real images at the far end that are told at most.
_TOLD = 3


@final
class RealDirections(Method[RealDirectionsResult]):
    r"""Do real images fail along the directions in which generated ones do?

    The styles that change the score of generated images most are found as `StyleInfluence` finds them. Then each real
    image is inverted: the generator is asked for the class that the classifier gives the image, at one score for all
    images, and its latent is moved until the generator draws the image, in smoothed pixels and in the classifier's
    features (`failscape.generators.invert`). With the image's own score its place would be partly the classifier's
    confidence, which goes with mistakes by itself: fed that score, random latents "confirmed" the same 7 of 10
    directions as real images did. Of each image it is said whether the classifier gives its 8-bit reconstruction the
    class of its 8-bit form.

    The place of an image on a style $j$ is $\mp (s_j - c_{kj}) / \sigma_j$, where $c_k$ is the mean of generated images
    of the class $k$ that the image is taken for, $\sigma_j$ the deviation within a class, and the sign such that the
    score of generated images falls. Along it the real images are parted in `bins` of as many each. A direction is
    confirmed where the accuracy on the last part is lower than on the rest, with an interval that excludes zero at 95 %
    over both ends of all directions together; where it is not, but accuracy on the first part differs from the rest,
    that is said. How the real images of the last part look other than the rest is measured, too, less
    the mean of each class that images are taken for: noise, sharpness, contrast and whatever else
    `failscape.metrics.MEASUREMENTS` holds.

    Accuracy is that of the classifier on the real images against `y`, which must be their labels; the images should be
    those that the classifier meets, right and wrong ones alike. Labels enter nothing else: an image's place is
    found from the class that the classifier gives it, so that it does not give away whether that is right.

    Styles go together in real images, and with how hard an image is, so that many a direction may be confirmed that
    does no harm by itself. How many that are is measured: the same images are sorted along `controls` other styles,
    drawn at random, each toward where the score falls, and told by the same intervals.

    Args:
        samples: generated images over which the influence of styles is measured; without gradients, by finite
            differences of 200 of them, or of four of each class where that is more. In a study this and
            `score` are those of its `StyleInfluence`, unless others are given: the directions tested are those that
            lead there.
        score: of the true class, by whose influence directions are ranked; as `StyleInfluence` takes it.
        top: directions.
        bins: parts of the real images along each.
        controls: other styles, drawn at random, along which the images are sorted for comparison; fewer where the
            generator has no more that vary.
        space: in which images are inverted, "w" or "s"; see `invert`.
        steps: of the inversion; the default is the one whose coordinates were measured, see `invert`. 1,000 digits take
            30 seconds on one core with it.
        shown: images to show from either end of each direction.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedGenerator: if the generator has no styles, or cannot be asked for the classifier's classes.
        GeneratorError: if the generator is conditioned on whole distributions.

    Example:
        >>> result = RealDirections()(classifier, stylegan2, x, y, rng=torch.Generator().manual_seed(0))
        >>> result.summary["agreement"], result.summary["confirmed"]

    References:
        Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers",
        AISafety 2022, section 4: named there as what remains to be done.
        Newcombe, "Interval Estimation for the Difference between Independent Proportions", 1998: the interval.
    """

    result_type: ClassVar[type[RealDirectionsResult]] = RealDirectionsResult
    ranks_over: ClassVar[str] = "samples"

    def __init__(
        self,
        *,
        samples: int = 20_000,
        score: ScoreName = "logit-margin",
        top: int = 10,
        bins: int = 5,
        controls: int = 50,
        space: Space = "w",
        steps: int = 25,
        shown: int = 6,
    ) -> None:
        if samples < 20 or top < 1 or shown < 1 or steps < 0 or controls < 0:
            raise ValueError(
                "Expected `samples` of at least 20, `top` and `shown` of at least 1, and `steps` and `controls` of at "
                f"least 0, but got {samples}, {top}, {shown}, {steps}, {controls}."
            )
        if bins < 2:
            raise ValueError(f"Expected at least 2 `bins`, the last and the rest, but got {bins}.")
        if space not in ("w", "s"):
            raise ValueError(f"Expected `space` to be 'w' or 's', but got {space!r}.")
        self.samples = samples
        self.score = known_score(score)
        self.top = top
        self.bins = bins
        self.controls = controls
        self.space: Space = space
        self.steps = steps
        self.shown = shown

    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> RealDirectionsResult:
        """Rank the styles on generated images, invert the real ones, and place them along the first."""
        styled = require_class_styles(generator, classifier, "real directions")
        influence = shared_influence(
            classifier, styled, self.samples, rng=rng, score=self.score, gradients=classifier.differentiable
        )
        effect = influence.effect()
        dimensions = influence.ranking()[: self.top]
        dimensions = dimensions[effect[dimensions] != 0]
        controls = _others(influence, dimensions, self.controls, rng)
        looked_at = torch.cat([dimensions, controls])

        originals = to_8_bits(x)
        probs = classifier.probs(originals)
        images, errors, encoder_errors, losses, coordinates = [], [], [], [], []
        for start in range(0, len(x), _BATCH):
            rows = slice(start, start + _BATCH)
            found, drawn = self._invert(classifier, styled, originals[rows], probs[rows].argmax(dim=1))
            images.append(to_8_bits(found.x))
            errors.append(_distance(images[-1], originals[rows]))
            encoder_errors.append(_distance(to_8_bits(drawn), originals[rows]))
            losses.append(found.loss)
            coordinates.append(_places(influence, found.s, probs[rows].argmax(dim=1), looked_at))
        places, control_places = torch.cat(coordinates).split([len(dimensions), len(controls)], dim=1)
        return RealDirectionsResult(
            images=torch.cat(images),
            originals=originals,
            ids=ids,
            labels=y,
            probs=probs,
            error=torch.cat(errors),
            encoder_error=torch.cat(encoder_errors),
            loss=torch.cat(losses),
            coordinates=places.contiguous(),
            control_coordinates=control_places.contiguous(),
            dimensions=dimensions,
            controls=controls,
            layers=tuple(layer_name(styled, d) for d in dimensions.tolist()),
            descriptions=_described(originals, probs.argmax(dim=1), places, self.bins),
            effect=-effect[dimensions].abs(),
            bins=self.bins,
            shown=self.shown,
            class_names=classifier.class_names,
        )

    def _invert(
        self, classifier: Classifier, generator: StyleGenerator, x: Float[Tensor, "N C H W"], said: Int[Tensor, " N"]
    ) -> tuple[Inversion, Float[Tensor, "N C H W"]]:
        """Return what was found for images, and what the encoder alone draws."""
        space = generator.condition_space
        assert space is not None, "checked at the border"
        condition = space.of_classes(said)
        # Without gradients features could steer nothing.
        features = (lambda images: classifier_features(classifier, images)[0]) if classifier.differentiable else None
        found = invert(generator, x, condition, space=self.space, steps=self.steps, features=features)
        with torch.no_grad():
            return found, generator(generator.encode(x), condition)


def _others(influence: Influence, dimensions: Int[Tensor, " T"], n: int, rng: torch.Generator) -> Int[Tensor, " R"]:
    """Draw at random among the other styles that vary within classes, whether or not they change the score."""
    other = influence.spread > 0
    other[dimensions] = False
    rows = other.nonzero()[:, 0]
    return rows[torch.randperm(len(rows), generator=rng)[:n]]


def _places(
    influence: Influence, s: Float[Tensor, "N S"], said: Int[Tensor, " N"], dimensions: Int[Tensor, " T"]
) -> Float[Tensor, "N T"]:
    """Return the place of each image on each style, in deviations from its class, toward where the score falls.

    Where it falls neither way: toward more of the style.
    """
    deviations = (s - influence.centre[said])[:, dimensions] / influence.spread[dimensions]
    return torch.where(influence.effect()[dimensions] > 0, -deviations, deviations)


def _described(
    x: Float[Tensor, "N C H W"], said: Int[Tensor, " N"], places: Float[Tensor, "N T"], bins: int
) -> tuple[str, ...]:
    """Say of each direction how the images of its last part look other than the rest; empty where they do not."""
    measurements = MEASUREMENTS.values() if places.shape[1] else ()
    # Within classes, as the places are: else a class that lies far out would describe the direction by its shape.
    measured = {each: _less_the_mean(each(x).double(), said) for each in measurements}
    level = 1 - 0.05 / max(1, len(measured) * places.shape[1])
    texts = []
    for place in places.T:
        *rest, last = in_order(place).tensor_split(bins)
        others = torch.cat(rest)
        effects = [
            Effect(
                measurement=each,
                change=difference_of_means(values[last], values[others], level=level),
                samples=len(place),
            )
            for each, values in measured.items()
        ]
        texts.append(", ".join(map(str, told_first(effects, _TOLD))))
    return tuple(texts)


def _less_the_mean(values: Float[Tensor, " N"], groups: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return values less the mean of each one's group, leaving NaN where nothing was measured."""
    away = values.clone()
    for group in groups.unique().tolist():
        rows = groups == group
        away[rows] -= values[rows].nanmean()
    return away


def _distance(one: Float[Tensor, "N C H W"], other: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the root mean square difference of the pixels of each image."""
    return (one - other).square().flatten(1).mean(dim=1).sqrt()
