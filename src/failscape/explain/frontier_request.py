"""What a search for frontiers is asked for, and of which networks it can be asked."""

from collections.abc import Mapping
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier, target_distribution
from failscape.classifiers.target import UNIFORM
from failscape.errors import GeneratorError, SpecError, UnsupportedGenerator
from failscape.generators import Generator, StyleGenerator
from failscape.generators.condition import VECTOR

Target = str | Mapping[str, float]

PAIRS, TRIPLES = "pairs", "triples"


def frontier_targets(
    targets: tuple[Target, ...], class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], Float[Tensor, "T K"]]:
    """Return the name of each target and its distribution.

    Args:
        targets: as `Frontier` takes several.
        class_names: the K classes.

    Raises:
        SpecError: if a target names an unknown class, or its shares are no probabilities that sum to 1.

    Example:
        >>> frontier_targets(("pairs",), ("cat", "cow", "dog"))[0]
        ('cat | cow', 'cat | dog', 'cow | dog')
    """
    found: dict[str, Tensor] = {}
    for target in targets:
        size = {PAIRS: 2, TRIPLES: 3}.get(target) if isinstance(target, str) else None
        if size is not None and target not in class_names:
            if len(class_names) < size:
                raise SpecError(
                    f"Expected at least {size} classes for {target!r}, but there are {len(class_names)}. Name targets."
                )
            for chosen in combinations(class_names, size):
                share = dict.fromkeys(chosen, 1 / size)
                found[" | ".join(chosen)] = target_distribution(share, class_names)
            continue
        if isinstance(target, str) and target not in (*class_names, UNIFORM) and not {",", "="} & set(target):
            raise SpecError(
                f"Expected {PAIRS}, {TRIPLES}, {UNIFORM}, or classes among {', '.join(map(repr, class_names))} as a "
                f"target, but got {target!r}. Name one of these, or several such as "
                f"{class_names[0]},{class_names[-1]}."
            )
        distribution = target_distribution(target, class_names)
        text = target if isinstance(target, str) else _spelled(target)
        wanted = (distribution > 0).nonzero()[:, 0].tolist()
        even = bool((distribution[wanted] == distribution[wanted[0]]).all())
        name = " | ".join(class_names[k] for k in wanted) if even else text
        found[text if len(wanted) == len(class_names) > 3 else name] = distribution
    return tuple(found), torch.stack(list(found.values()))


def _spelled(shares: Mapping[str, float]) -> str:
    return ",".join(f"{name}={share:g}" for name, share in shares.items() if share > 0)


def require_frontiers(classifier: Classifier, generator: Generator) -> None:
    """Refuse networks with which no frontier can be searched for.

    Raises:
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if the generator takes a class and a score, and has no styles.
        GeneratorError: if it takes other classes than the classifier's.
    """
    classifier.require_gradients("frontiers", "Export the network in a form that keeps them.")
    space = generator.condition_space
    if space is None:
        return
    if not isinstance(generator, StyleGenerator) and space.score != VECTOR:
        raise UnsupportedGenerator(
            "Expected a generator without condition, with styles, or of whole distributions, for frontiers, but this "
            f"{generator.family} takes one class and its {space.score} from its condition, and not from its latents, "
            "so that nothing it draws lies between two. Train one without: `failscape train wgan`."
        )
    if space.num_classes != classifier.num_classes:
        raise GeneratorError(
            f"Expected a generator of the {classifier.num_classes} classes of {classifier.name}, but this one takes "
            f"conditions of {space.num_classes}. Use one that was trained on the classifier's classes."
        )


def require_shown(classifier: Classifier, generator: Generator, targets: Float[Tensor, "T K"]) -> None:
    """Refuse targets of classes of which the generator has seen nothing.

    Raises:
        GeneratorError: naming the class.
    """
    if generator.condition_space is None:
        return
    known = set(generator.condition_space.classes.tolist())
    for k in (targets > 0).any(dim=0).nonzero()[:, 0].tolist():
        if k not in known:
            raise GeneratorError(
                f"Expected targets of classes that the generator was shown, but it was shown no image of "
                f"{classifier.class_names[k]!r}. Leave that class out of the targets, or train one on images of it."
            )


def takes_targets(generator: Generator) -> bool:
    """Return whether a generator is asked for a target itself: its condition is a distribution, beside its latents."""
    space = generator.condition_space
    return space is not None and space.score == VECTOR and not isinstance(generator, StyleGenerator)
