"""A generator with styles of which everything is known by analysis, and classifiers that one style misleads.

Pixels of the 4 × 4 image, each its own style but those of the classes, which fill a quadrant:

    class 0   class 0   class 1   class 1
    class 0   class 0   class 1   class 1
    class 2   class 2   harm      harmless
    class 2   class 2   score     noise
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.generators import Condition, ConditionSpace, StyleGenerator, StyleLayer

SHAPE = (1, 4, 4)
GREY = 128 / 255
CLASSES = 3

# Indices of styles; those of the classes come first. `DEAD` changes no image.
HARM, HARMLESS, DEAD, SCORE = 3, 4, 5, 6
STYLES = 7
# Styles in the units of their layers: what is measured in units of deviations must not heed these.
SCALE = torch.tensor([1.0, 1.0, 1.0, 2.0, 0.5, 100.0, 1.0])
# Grey values by which a style of one unit before scaling brightens its pixels.
_CONTRAST, _STEP = 0.2, 0.1


class PlantedStyles(StyleGenerator):
    """Three classes; the harmful, the harmless and the dead style are latents, independent and standard normal.

    With `w = (±1 for each class, harm, harmless, dead, 2 · score − 1)` the styles are `w * SCALE`.

    Args:
        pull: adds `pull · (1 − 2 · score)` to the harm, which then depends on what is asked for, too.
        supported: lowest and highest score of every class.
        quantiles: of the scores of every class; by default those of `supported`.
        condition: false makes a generator without condition, which always draws class 0 at score 1.
    """

    family: ClassVar[str] = "planted-styles"

    def __init__(
        self,
        *,
        pull: float = 0.0,
        supported: tuple[float, float] = (0.3, 1.0),
        quantiles: Sequence[float] | None = None,
        condition: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.latent_dim, self.image_shape, self.noise_dim = {}, 3, SHAPE, 1
        self.style_layers = (
            StyleLayer(kind="convolution", start=0, stop=HARM, resolution=(2, 2)),
            StyleLayer(kind="convolution", start=HARM, stop=SCORE, resolution=(4, 4)),
            StyleLayer(kind="image", start=SCORE, stop=STYLES, resolution=(4, 4)),
        )
        if condition:
            rows = None if quantiles is None else [list(quantiles)] * CLASSES
            ranges = [list(supported)] * CLASSES
            self.condition_space = ConditionSpace(num_classes=CLASSES, supported=ranges, quantiles=rows)
        self.pull = pull

    def mapping(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        self.check_latents(z)
        self.check_condition(condition, len(z))
        asked = Condition.of(0, 1.0, n=len(z)) if condition is None else condition
        classes = 2 * torch.nn.functional.one_hot(asked.y, CLASSES) - 1.0
        score = (2 * asked.score - 1).to(z.dtype)[:, None]
        return torch.cat([classes, z[:, :1] - self.pull * score, z[:, 1:], score], dim=1)

    def styles(self, w: Tensor) -> Tensor:
        return w * SCALE

    def synthesize(self, s: Tensor, noise: Tensor | None = None) -> Tensor:
        w = s / SCALE
        noise = self.shared_noise() if noise is None else noise
        block = (GREY + _CONTRAST * w[:, :CLASSES])[:, :, None, None].expand(-1, -1, 2, 2)
        rest = [w[:, HARM], w[:, HARMLESS], w[:, SCORE], noise[:, 0].expand(len(s))]
        corner = (GREY + _STEP * torch.stack(rest, dim=1)).unflatten(1, (2, 2))
        top, bottom = torch.cat([block[:, 0], block[:, 1]], dim=2), torch.cat([block[:, 2], corner], dim=2)
        return torch.cat([top, bottom], dim=1)[:, None].clamp(0, 1)

    def draw_noise(self, n: int, *, rng: torch.Generator) -> Tensor:
        return torch.randn(n, 1, generator=rng)

    def shared_noise(self) -> Tensor:
        return torch.zeros(1, 1)

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return self.synthesize(self.styles(self.mapping(z, condition)))

    def encode(self, x: Tensor) -> Tensor:
        """Return what harm (less what the score has pulled) and harmless show; the dead latent shows nowhere."""
        self.check_images(x)
        harm, harmless, score = ((x[:, 0, row, column] - GREY) / _STEP for row, column in ((2, 2), (2, 3), (3, 2)))
        return torch.stack([harm + self.pull * score, harmless, 0 * harm], dim=1)


def misled_beyond(harm: float, slope: float = 50.0, name: str = "planted") -> Classifier:
    """Wrap a classifier that is right where the harm in the image, in units of `w`, is below `harm`, else wrong.

    Its margin is `slope · 0.04 · (harm − w[HARM])` up to the rounding of the image, since quadrants of the true and
    of the other classes differ by 0.4 and one unit of harm brightens its pixel by 0.1. An 8-bit image tells harms apart
    that differ by 0.04.
    """

    def logits(x: Tensor) -> Tensor:
        quadrants = x[:, 0].unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4)).flatten(1)[:, :CLASSES]
        left = GREY + _STEP * harm - x[:, 0, 2, 2]
        return slope * left[:, None] * (quadrants - GREY)

    return Classifier(logits, image_shape=SHAPE, name=name)


def blind_to(label: int, harm: float = 100.0, name: str = "blind") -> Classifier:
    """Wrap a classifier like `misled_beyond`, which moreover never says `label`."""
    seeing = misled_beyond(harm)

    def logits(x: Tensor) -> Tensor:
        never = torch.zeros(CLASSES).index_fill(0, torch.tensor(label), -1e6)
        return seeing(x) + never

    return Classifier(logits, image_shape=SHAPE, name=name)


def always(label: int) -> Classifier:
    """Wrap a classifier that says `label` of every image, equally surely."""
    constant = 4.0 * torch.nn.functional.one_hot(torch.tensor(label), CLASSES)
    return Classifier(lambda x: constant + 0 * x.mean(dim=(1, 2, 3))[:, None], image_shape=SHAPE, name="constant")
