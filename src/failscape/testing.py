"""Conformance checks: does a classifier, a generator or a method keep the promises that failscape relies on?

Put your own class through them in your tests. Each raises `AssertionError` with a sentence that names the first
promise that is broken, and returns nothing where all are kept.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, FailscapeError, GeneratorError, ImageError, LabelError
from failscape.explain import Method, Result, Verification, to_8_bits
from failscape.figures import Finding, Plot
from failscape.generators import (
    FAMILIES,
    Autoencoder,
    Condition,
    ConditionSpace,
    Generator,
    StyleGenerator,
    load_generator,
    save_generator,
)
from failscape.generators.condition import VECTOR

__all__ = ["check_classifier", "check_generator", "check_method"]

_IMAGES = 6
# Agreement of two computations of the same thing in float32, relative to the largest value.
_TOLERANCE = 1e-3
# Finite differences in float32 are rough: a tenth tells a wrong gradient from a right one.
_GRADIENT_TOLERANCE = 0.1
# A summary key may carry these, for the interval of a rate or a mean and its number of observations.
_SUFFIXES = ("_low", "_high", "_n")
# Pictures beside a sentence: more would not be seen at a glance.
_MOST_PANELS = 6

Network = Callable[..., Tensor]


def check_classifier(classifier: Classifier, *, seed: int = 0) -> None:
    """Check that a classifier can be explained.

    Its logits must be one finite float32 row an image, the same each time and whatever else is in the batch; the
    images must not be written to; images of another size must be refused; gradients, where it says that it has
    them, must agree with finite differences.

    Args:
        classifier: any.
        seed: seeds the images that it is tried on.

    Raises:
        AssertionError: naming the broken promise.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> check_classifier(Classifier(network, image_shape=(1, 8, 8)))
    """
    name, shape = f"the classifier {classifier.name!r}", classifier.image_shape
    rng = torch.Generator().manual_seed(seed)
    x = to_8_bits(torch.rand(_IMAGES, *shape, generator=rng))
    x[0], x[1] = 0, 1
    logits = _check_function(classifier, x, name, "images")
    _promise(
        logits.shape == (_IMAGES, classifier.num_classes) and logits.dtype == torch.float32,
        f"{name} to return float32 logits of shape {(_IMAGES, classifier.num_classes)}",
        f"{logits.dtype} of shape {tuple(logits.shape)}",
    )
    probs = classifier.probs(x, batch_size=4)
    _promise(
        _close(probs, logits.cpu().softmax(dim=1)),
        f"the probabilities of {name} to be the softmax of its logits",
        f"a difference of {_difference(probs, logits.cpu().softmax(dim=1)):.2g}",
    )
    _refused(lambda: classifier(torch.zeros(1, *shape[:2], shape[2] + 1)), ClassifierError, name, "a wider image")
    if classifier.differentiable:
        _check_gradient(classifier, 0.25 + 0.5 * x[2:], name, rng)


def check_generator(generator: Generator, *, seed: int = 0) -> None:
    """Check that a generator draws as methods expect.

    Its images must be finite and in [0, 1], also for latents far out, the same each time and whatever else is in
    the batch; latents must not be written to, and refused where their length is wrong; samples must follow `rng`
    and nothing else; gradients must agree with finite differences. One that has a `condition_space` must keep all
    that with conditions, heed class and score, and refuse to draw without a condition or with one that it cannot
    understand. An autoencoder must encode just as well; the parts of a generator with styles must make up the whole.
    One of a family in `failscape.generators.FAMILIES` must draw the same after saving and loading.

    Args:
        generator: any, in evaluation mode.
        seed: seeds the latents and conditions that it is tried on.

    Raises:
        AssertionError: naming the broken promise.

    Example:
        >>> check_generator(failscape.load_generator("embedded:mnist-vae-2d"))
    """
    name, dim = type(generator).__name__, generator.latent_dim
    rng = torch.Generator().manual_seed(seed)
    z = generator.sample_latents(_IMAGES, rng=rng)
    _promise(z.shape == (_IMAGES, dim), f"{name} to sample latents of length {dim}", f"{tuple(z.shape)}")
    z[0] *= 4
    space = generator.condition_space
    condition = None if space is None else _conditions(space, rng)
    x = _check_function(generator, z, name, "latents", condition).cpu()
    expected = (_IMAGES, *generator.image_shape)
    _promise(x.shape == expected, f"{name} to draw images of shape {expected}", f"{tuple(x.shape)}")
    _promise(
        bool(x.min() >= 0 and x.max() <= 1),
        f"{name} to draw images in [0, 1]",
        f"values from {float(x.min()):.3g} to {float(x.max()):.3g}",
    )
    longer = torch.zeros(_IMAGES, dim + 1)
    _refused(lambda: generator(longer, *_given(condition)), GeneratorError, name, f"latents of length {dim + 1}")
    _check_sampling(generator, name, seed, condition)
    _check_gradient(generator, z, name, rng, condition)
    if space is not None and condition is not None:
        _check_condition(generator, space, z, condition, name)
    if isinstance(generator, Autoencoder):
        encoded = _check_function(generator.encode, x, f"the encoder of {name}", "images")
        _promise(
            encoded.shape == z.shape,
            f"the encoder of {name} to return latents of shape {tuple(z.shape)}",
            f"{tuple(encoded.shape)}",
        )
        channels, height, width = generator.image_shape
        wider = torch.zeros(1, channels, height, width + 1)
        _refused(lambda: generator.encode(wider), GeneratorError, f"the encoder of {name}", "a wider image")
    if isinstance(generator, StyleGenerator):
        _check_styles(generator, z, condition, name)
    if FAMILIES.get(generator.family) is type(generator):
        with TemporaryDirectory() as folder:
            save_generator(generator, Path(folder))
            with torch.no_grad():
                again = load_generator(Path(folder))(z, *_given(condition))
        _promise(_close(again, x), f"{name} to draw the same after saving and loading", "other images")


def check_method(
    method: Method[Any],
    classifier: Classifier,
    generator: Generator,
    x: Float[Tensor, "N C H W"],
    y: Int[Tensor, " N"],
    *,
    seed: int = 0,
) -> None:
    """Check that a method and its result keep the contract that executors, reports and studies rely on.

    The result must be what the classifier says of its 8-bit images, follow `rng` and nothing else, not be guided
    by the oracle, save and load without a difference, define every number, draw its figures, and tell its findings
    in whole sentences with pictures. Bad input must be refused; images and labels must not be written to.

    Args:
        method: any; it is run twice.
        classifier: one that the method can explain.
        generator: one that the method can use.
        x: a few images in [0, 1].
        y: the class that each image is to be classified as.
        seed: seeds the method.

    Raises:
        AssertionError: naming the broken promise.

    Example:
        >>> check_method(SympatheticExamples(), classifier, vae, mistakes.x[:4], mistakes.y[:4])
    """
    name = type(method).__name__
    before, globally = (x.clone(), y.clone()), torch.random.get_rng_state()
    result: Result = method(classifier, generator, x, y, rng=torch.Generator().manual_seed(seed))
    judged: Result = method(classifier, generator, x, y, rng=torch.Generator().manual_seed(seed), oracle=classifier)
    _promise(torch.equal(x, before[0]) and torch.equal(y, before[1]), f"{name} to leave its input alone", "a change")
    _promise(
        torch.equal(torch.random.get_rng_state(), globally),
        f"{name} to draw from `rng` alone",
        "draws from torch's global generator",
    )
    _promise(
        isinstance(result, method.result_type),
        f"{name} to return a {method.result_type.__name__}",
        type(result).__name__,
    )
    different = _first_difference(result, judged, but="verification")
    _promise(
        not different,
        f"{name} to return the same for the same seed, with an oracle or without",
        f"a difference in `{different}`",
    )
    _check_verification(result, judged, classifier, name)
    _check_bad_input(method, classifier, generator, x, y, name)
    _check_round_trip(judged, name)
    _check_account(judged, name)


def _conditions(space: ConditionSpace, rng: torch.Generator) -> Condition:
    """Return conditions of several classes, their scores spread over the range that each class supports."""
    y = torch.arange(_IMAGES) % space.num_classes
    if space.score == VECTOR:
        # The class asked for is the likeliest of its distribution.
        logits = torch.randn(_IMAGES, space.num_classes, generator=rng)
        probs = (logits + 4 * torch.nn.functional.one_hot(y, space.num_classes)).softmax(dim=1)
        return Condition(y=y, score=probs.gather(1, y[:, None])[:, 0], probs=probs)
    low, high = torch.tensor(space.supported)[y].sort(dim=1).values.T
    return Condition(y=y, score=(low + (high - low) * torch.linspace(0.1, 0.9, _IMAGES)).clamp(1e-3, 1))


def _given(condition: Condition | None) -> tuple[Condition, ...]:
    """Return what is passed after the latents: nothing without a condition."""
    return () if condition is None else (condition,)


def _check_function(
    function: Network, given: Tensor, name: str, what: str, condition: Condition | None = None
) -> Tensor:
    """Check determinism, batch independence, finite values, and that the input is left alone."""
    before, asked = given.clone(), _given(condition)
    with torch.no_grad():
        together, again = function(given, *asked), function(given, *asked)
        rows = [slice(i, i + 1) for i in range(len(given))]
        alone = torch.cat([function(given[row], *(each[row] for each in asked)) for row in rows])
    _promise(torch.equal(given, before), f"{name} to leave its {what} alone", "a change")
    _promise(bool(together.isfinite().all()), f"{name} to return finite values", "NaN or infinity")
    _promise(
        _close(again, together),
        f"{name} to return the same for the same {what}",
        f"a difference of {_difference(again, together):.2g}",
    )
    _promise(
        alone.shape == together.shape and _close(alone, together),
        f"{name} to treat each of its {what} whatever else is in the batch",
        f"a difference of {_difference(alone, together):.2g}",
    )
    return together


def _check_sampling(generator: Generator, name: str, seed: int, condition: Condition | None) -> None:
    globally = torch.random.get_rng_state()
    options: dict[str, Any] = {} if condition is None else {"condition": condition[slice(0, 2)]}
    one, two = (generator.sample(2, rng=torch.Generator().manual_seed(seed), **options) for _ in range(2))
    other = generator.sample(2, rng=torch.Generator().manual_seed(seed + 1), **options)
    _promise(_close(one, two), f"{name} to draw the same samples for the same `rng`", "others")
    _promise(not torch.equal(one, other), f"{name} to draw other samples for another `rng`", "the same")
    _promise(
        torch.equal(torch.random.get_rng_state(), globally),
        f"{name} to sample from `rng` alone",
        "draws from torch's global generator",
    )


def _check_condition(generator: Generator, space: ConditionSpace, z: Tensor, condition: Condition, name: str) -> None:
    """Check that what is asked for is heeded, and that what cannot be understood is refused."""
    with torch.no_grad():
        x = generator(z, condition)
        other_class = generator(z, replace(condition, y=(condition.y + 1) % space.num_classes))
        if space.score == VECTOR:
            assert condition.probs is not None
            other_score = generator(z, replace(condition, probs=condition.probs.flip(0)))
        else:
            other_score = generator(z, replace(condition, score=condition.score.flip(0)))
    _promise(not torch.equal(other_class, x), f"{name} to heed the class asked for", "the same images for another")
    _promise(not torch.equal(other_score, x), f"{name} to heed the score asked for", "the same images for another")
    wrong: list[tuple[str, Condition | None]] = [
        ("no condition", None),
        ("one condition too few", condition[slice(1, None)]),
        ("a class that is none", replace(condition, y=condition.y + space.num_classes)),
    ]
    if space.score == VECTOR:
        wrong.append(("a condition without its distribution", replace(condition, probs=None)))
    for what, asked in wrong:
        _refused(partial(generator, z, *_given(asked)), GeneratorError, name, what)


def _check_styles(generator: StyleGenerator, z: Tensor, condition: Condition | None, name: str) -> None:
    """Check that mapping, styles and synthesis make up the whole, and that the layers share out the styles."""
    with torch.no_grad():
        x = generator(z, *_given(condition))
        s = generator.styles(generator.mapping(z, *_given(condition)))
        again = generator.synthesize(s)
    _promise(
        s.shape == (len(z), generator.style_dim),
        f"the styles of {name} to have the shape {(len(z), generator.style_dim)}",
        f"{tuple(s.shape)}",
    )
    _promise(_close(again, x), f"{name} to draw what synthesis makes of its styles", "other images")
    ends = [(layer.start, layer.stop) for layer in generator.style_layers]
    _promise(
        [start for start, _ in ends] == [0, *(stop for _, stop in ends[:-1])],
        f"the style layers of {name} to follow each other without a gap",
        f"{ends}",
    )


def _check_gradient(
    function: Network, given: Tensor, name: str, rng: torch.Generator, condition: Condition | None = None
) -> None:
    """Compare directional derivatives with central differences, at the step where they agree best."""
    asked = _given(condition)
    with torch.no_grad():
        weights = torch.randn(function(given, *asked).shape, generator=rng)

    def score(inputs: Tensor) -> Tensor:
        return (function(inputs, *asked).cpu() * weights).flatten(1).double().sum(dim=1)

    with torch.enable_grad():
        inputs = given.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score(inputs).sum(), inputs)
    directions = torch.randn(4, *given.shape, generator=rng).sign()
    claimed = torch.stack([(gradient * direction).flatten(1).sum(dim=1) for direction in directions]).double()
    errors = []
    for step in (1e-1, 1e-2, 1e-3, 1e-4):
        with torch.no_grad():
            moves = [(score(given + step * d) - score(given - step * d)) / (2 * step) for d in directions]
        # Medians, since a step across a kink says nothing.
        errors.append(float((torch.stack(moves) - claimed).abs().median() / claimed.abs().median().clamp_min(1e-3)))
    _promise(
        min(errors) < _GRADIENT_TOLERANCE,
        f"the gradient of {name} to agree with finite differences",
        f"a relative difference of {min(errors):.2g}",
    )


def _check_verification(result: Result, judged: Result, classifier: Classifier, name: str) -> None:
    images = result.images
    _promise(torch.equal(images, to_8_bits(images)), f"the images of {name} to be 8-bit values in [0, 1]", "others")
    probs = classifier.probs(images)
    for verification, oracle in ((result.verification, None), (judged.verification, probs)):
        _promise(
            isinstance(verification, Verification) and _close(verification.probs, probs),
            f"the verification of {name} to be what the classifier says of its 8-bit images",
            "something else",
        )
        assert verification is not None
        said = verification.oracle_probs
        _promise(
            said is None if oracle is None else said is not None and _close(said, oracle),
            f"the verification of {name} to hold what the oracle says, if there is one",
            "something else",
        )


def _check_bad_input(
    method: Method[Any], classifier: Classifier, generator: Generator, x: Tensor, y: Tensor, name: str
) -> None:
    nan, bright, wrong = x.clone(), x.clone(), y.clone()
    nan[0], bright[0], wrong[0] = torch.nan, 1.5, classifier.num_classes
    for images, labels, kind, what in (
        (nan, y, ImageError, "images with NaN"),
        (bright, y, ImageError, "images beyond 1"),
        (x[:0], y[:0], ImageError, "no images"),
        (x[..., :-1], y, ClassifierError, "narrower images"),
        (x, wrong, LabelError, "a label that is no class"),
    ):
        rng = torch.Generator().manual_seed(0)
        _refused(partial(method, classifier, generator, images, labels, rng=rng), kind, name, what)


def _check_round_trip(result: Result, name: str) -> None:
    with TemporaryDirectory() as folder:
        result.save(Path(folder))
        loaded = type(result).load(Path(folder))
    different = _first_difference(result, loaded)
    _promise(not different, f"the result of {name} to be the same after saving and loading", f"another `{different}`")


def _check_account(result: Result, name: str) -> None:
    """Check summary, table, definitions and figures against each other."""
    table, definitions = result.table, result.definitions
    for key, value in result.summary.items():
        plain = next((key.removesuffix(s) for s in _SUFFIXES if key.endswith(s)), key)
        _promise(key in definitions or plain in definitions, f"{name} to define the summary's {key!r}", "no definition")
        _promise(isinstance(value, int | float), f"the summary of {name} to hold numbers", f"{key} = {value!r}")
    for column in table.column_names:
        _promise(column in definitions, f"{name} to define the table's {column!r}", "no definition")
    rows = len(getattr(result, "ids", result.images))
    images = len(result.images)
    for what, found in (("an origin", result.origins), ("what it was made from", result.made_from)):
        _promise(len(found) == images, f"{name} to state {what} for each image", f"{len(found)} of {images}")
    _promise(table.num_rows == rows, f"the table of {name} to have a row for each id", f"{table.num_rows} of {rows}")
    names = [figure.name for figure in result.figures]
    _promise(len(set(names)) == len(names), f"the figures of {name} to have different names", f"{names}")
    for figure in result.figures:
        _promise(
            bool(figure.title and figure.caption),
            f"the figure {figure.name!r} of {name} to have a title and a caption",
            "none",
        )
        if isinstance(figure, Plot):
            figure.draw()
    for finding in result.findings:
        _check_finding(finding, name)


def _check_finding(finding: Finding, name: str) -> None:
    sentence = finding.sentence
    _promise(
        len(sentence) > 1 and sentence == sentence.strip() and sentence.endswith("."),
        f"each finding of {name} to be a sentence that ends with a full stop",
        f"{sentence!r}",
    )
    _promise(
        len(finding.panels) <= _MOST_PANELS,
        f"each finding of {name} to have up to {_MOST_PANELS} panels",
        f"{len(finding.panels)}",
    )
    for panel in finding.panels:
        what, pixels = f"the panel {panel.label!r} of a finding of {name}", panel.pixels
        lowest = -1 if panel.signed else 0
        _promise(bool(panel.label.strip()), f"each panel of a finding of {name} to have a label", f"{panel.label!r}")
        _promise(
            pixels.ndim == 3 and len(pixels) in (1, 3) and pixels.numel() > 0,
            f"{what} to be of shape (C, H, W), C 1 or 3",
            f"{tuple(pixels.shape)}",
        )
        _promise(
            bool(pixels.isfinite().all()) and lowest <= float(pixels.min()) and float(pixels.max()) <= 1,
            f"{what} to hold values from {lowest} to 1",
            f"values from {float(pixels.min()):.3g} to {float(pixels.max()):.3g}",
        )


def _first_difference(one: Result, other: Result, but: str = "") -> str:
    """Return the name of the first field that differs; NaN equals NaN."""
    for entry in fields(one):
        if entry.name != but and not _same(getattr(one, entry.name), getattr(other, entry.name)):
            return entry.name
    return ""


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Verification) and isinstance(other, Verification):
        return all(_same(getattr(one, entry.name), getattr(other, entry.name)) for entry in fields(one))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and bool((one == other).logical_or((one != one) & (other != other)).all())
        )
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _refused(call: Callable[[], Any], kind: type[FailscapeError], name: str, what: str) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(
            f"Expected {name} to refuse {what} with {kind.__name__}, but got {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"Expected {name} to refuse {what} with {kind.__name__}, but it was accepted.")


def _promise(kept: bool, expected: str, got: str) -> None:
    if not kept:
        raise AssertionError(f"Expected {expected}, but got {got}.")


def _difference(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return torch.inf
    return float((one - other).abs().max()) if one.numel() else 0.0


def _close(one: Tensor, other: Tensor) -> bool:
    largest = float(other.abs().max()) if other.numel() else 0.0
    return _difference(one, other) <= _TOLERANCE * max(1.0, largest)
