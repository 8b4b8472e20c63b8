"""A population in style space: samples of a generator, with the class that each was asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedGenerator
from failscape.explain.method import to_8_bits
from failscape.generators import Generator, StyleGenerator, require_styles

_BATCH = 250


@final
@dataclass(frozen=True, kw_only=True)
class StyleSamples:
    """Samples of a generator with styles.

    Attributes:
        y: the class that each was asked for: its true class.
        z: latents.
        w: intermediate latents.
        s: styles of all layers.
        noise: noise maps, one row a sample.
    """

    y: Int[Tensor, " N"]
    z: Float[Tensor, "N D"]
    w: Float[Tensor, "N W"]
    s: Float[Tensor, "N S"]
    noise: Float[Tensor, "N P"]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> "StyleSamples":
        """Return some of the rows."""
        return StyleSamples(y=self.y[rows], z=self.z[rows], w=self.w[rows], s=self.s[rows], noise=self.noise[rows])


def require_class_styles(generator: Generator, classifier: Classifier, method: str) -> StyleGenerator:
    """Return the generator as one with styles that can be asked for each class of the classifier.

    Raises:
        UnsupportedGenerator: if it has no styles, no condition, or other classes, saying what to use instead.
    """
    styled = require_styles(generator, method)
    space = styled.condition_space
    if space is None or space.num_classes != classifier.num_classes:
        got = "has no condition" if space is None else f"knows {space.num_classes} classes"
        raise UnsupportedGenerator(
            f"Expected a generator that can be asked for each of the {classifier.num_classes} classes for {method}, "
            f"since the class asked for is a sample's true one, but this {styled.family} {got}. Train one with "
            "`failscape train gan --classifier …`."
        )
    return styled


@torch.no_grad()
def sample_styles(
    generator: StyleGenerator, n: int, *, rng: torch.Generator, y: Int[Tensor, " N"] | None = None
) -> StyleSamples:
    """Draw samples whose classes and scores are distributed as those of the training images.

    Args:
        generator: as `require_class_styles` returns it.
        n: how many.
        rng: draws conditions, latents and noise.
        y: the classes, if only the scores are to be drawn.

    Raises:
        GeneratorError: if the generator is conditioned on whole distributions, of which none can be drawn.
    """
    space = generator.condition_space
    assert space is not None, "checked at the border"
    condition = space.sample(n, rng=rng, y=y)
    z = generator.sample_latents(n, rng=rng)
    w = generator.mapping(z, condition)
    return StyleSamples(y=condition.y, z=z, w=w, s=generator.styles(w), noise=generator.draw_noise(n, rng=rng))


def style_batches(
    generator: StyleGenerator, n: int, *, rng: torch.Generator, size: int = _BATCH
) -> Iterator[StyleSamples]:
    """Draw `n` samples batch after batch, the classes taking turns, so that each has as many."""
    space = generator.condition_space
    assert space is not None, "checked at the border"
    classes = space.classes
    for start in range(0, n, size):
        y = classes[torch.arange(start, min(start + size, n)) % len(classes)]
        yield sample_styles(generator, len(y), rng=rng, y=y)


@torch.no_grad()
def find_mistakes(
    classifier: Classifier, generator: StyleGenerator, wanted: int, *, most: int, rng: torch.Generator
) -> tuple[Float[Tensor, "M S"], Int[Tensor, " M"]]:
    """Draw samples as `style_batches` does, and keep those alone that are misclassified.

    Args:
        classifier: what is explained.
        generator: as `require_class_styles` returns it.
        wanted: how many to find; a few more may be returned.
        most: how many samples to draw for them at most.
        rng: draws them.

    Returns:
        Their styles, and the class that each was asked for.
    """
    found, asked, left = [torch.empty(0, generator.style_dim)], [torch.empty(0, dtype=torch.int64)], wanted
    for samples in style_batches(generator, most, rng=rng):
        wrong = classifier.predict(to_8_bits(generator.synthesize(samples.s, samples.noise))) != samples.y
        found.append(samples.s[wrong])
        asked.append(samples.y[wrong])
        left -= int(wrong.sum())
        if left <= 0:
            break
    return torch.cat(found), torch.cat(asked)


def left_unsaid(
    count: Int[Tensor, " K"], right: Int[Tensor, " K"], predicted: Int[Tensor, " K"], class_names: Sequence[str]
) -> str:
    """Say in sentences which classes of samples are never predicted, or never rightly; empty if there are none.

    Where all samples are taken for one class, it is that which is said.

    Args:
        count: samples of each class.
        right: how many of them are classified rightly.
        predicted: how many samples are taken for each class.
        class_names: K names.
    """
    if int((predicted > 0).sum()) == 1 and int((count > 0).sum()) > 1:
        return f" It gives every sample the same answer, {class_names[int(predicted.argmax())]}."
    never = [k for k in range(len(count)) if count[k] and not predicted[k]]
    wrong = [k for k in range(len(count)) if count[k] and predicted[k] and not right[k]]
    sentences = ""
    for classes, said in ((never, "It takes no sample for"), (wrong, "It is wrong about every sample of")):
        names = [class_names[k] for k in classes]
        if names:
            listed = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
            sentences += f" {said} {listed}."
    return sentences


@torch.no_grad()
def images_of(
    generator: StyleGenerator, s: Float[Tensor, "N S"], noise: Float[Tensor, "#N P"] | None = None
) -> Float[Tensor, "N C H W"]:
    """Draw the images of styles in batches, with bounded memory; one row of noise, or none, serves all."""
    parts = []
    for start in range(0, len(s), _BATCH):
        rows = slice(start, start + _BATCH)
        shared = noise is None or len(noise) == 1
        parts.append(generator.synthesize(s[rows], noise if noise is None or shared else noise[rows]))
    return torch.cat(parts) if parts else torch.empty(0, *generator.image_shape)


def layer_name(generator: StyleGenerator, dimension: int) -> str:
    """Return in words to which layer a style belongs, such as "layer 3, convolution, 14 × 14"."""
    for index, layer in enumerate(generator.style_layers, start=1):
        if layer.start <= dimension < layer.stop:
            height, width = layer.resolution
            return f"layer {index}, {layer.kind}, {height} × {width}"
    raise AssertionError(f"style {dimension} belongs to no layer")
