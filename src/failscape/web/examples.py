"""Sympathetic examples that are asked for in the browser, one image at a time."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import FailscapeError, UnsupportedGenerator
from failscape.explain import SympatheticResult
from failscape.generators import Autoencoder, Generator
from failscape.report.run import Run, Step
from failscape.study.config import StepConfig
from failscape.study.methods import prepare_method
from failscape.web.networks import Networks

METHOD = "sympathetic-examples"
_MOST_KEPT = 200


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """With what an example is made.

    Attributes:
        classifier: is explained.
        generator: has an encoder.
        oracle: judges, if the run has one.
        step: the method and its settings.
        drawn_with: the spec of the generator.
    """

    classifier: Classifier
    generator: Generator
    oracle: Classifier | None
    step: StepConfig
    drawn_with: str


def recipe_for(run: Run, number: int, networks: Networks) -> Recipe:
    """Return with what an example of a mistake of a step is made.

    That is what the step itself used if it made such examples, else what another one of the same classifier did, else
    the first generator of the run that has an encoder and draws images of the classifier's shape.

    Args:
        run: the run.
        number: of the step, from 1.
        networks: of the runs.

    Raises:
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if no generator of the run has an encoder.
        FailscapeError: if the classifier cannot be loaded.
    """
    own = run.steps[number - 1]
    classifier = networks.classifier(str(own.record["classifier"]))
    classifier.require_gradients("sympathetic examples", "Wrap a PyTorch network instead of a callable.")
    alike = [step for step in run.steps if step.record.get("classifier") == own.record["classifier"]]
    made = [step for step in (own, *alike) if step.record.get("method") == METHOD]
    for step in (*made, own, *alike, *run.steps):
        spec = step.record.get("generator")
        generator = _autoencoder(spec, networks)
        if generator is None or generator.image_shape != classifier.image_shape:
            continue
        settings = step.record.get("settings") if step in made else None
        return Recipe(
            classifier=classifier,
            generator=generator,
            oracle=_oracle([own, *alike], networks),
            step=StepConfig(method=METHOD, settings=dict(settings) if isinstance(settings, dict) else {}),
            drawn_with=str(spec),
        )
    raise UnsupportedGenerator(
        "Expected a generator of this run that encodes images of the classifier's shape and needs no class named, "
        "since a sympathetic example begins with the image's latent, but none does. Train one with `failscape train "
        f"vae`, and add a step `{METHOD}` with it to the study."
    )


@final
@dataclass(frozen=True, kw_only=True)
class Made:
    """An example that was made.

    Attributes:
        result: has one row.
        drawn_with: the spec of the generator.
    """

    result: SympatheticResult
    drawn_with: str


@final
class Examples:
    """The examples that were made, the last ones; they are no part of a run and end with the server.

    Args:
        networks: of the runs.
    """

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._made: OrderedDict[tuple[str, str], Made] = OrderedDict()

    def made(self, place: str) -> dict[str, Made]:
        """Return the examples at a place, by the keys of their images."""
        with self._lock:
            return {key: made for (where, key), made in self._made.items() if where == place}

    def make(self, recipe: Recipe, x: Float[Tensor, "1 C H W"], y: int, name: str, *, place: str, key: str) -> Made:
        """Search for the example of an image, and keep it; one that was made before is not searched for again.

        Args:
            recipe: with what.
            x: the image.
            y: its true class.
            name: its id.
            place: where it is kept: the step of a run.
            key: of the image there.

        Raises:
            FailscapeError: if method, networks and image do not fit each other.
        """
        # One at a time: two searches on the same cores take twice as long.
        with self._making:
            known = self.made(place).get(key)
            if known is not None:
                return known
            method = prepare_method(recipe.step, allow_code=self._networks.allow_code).method
            result = method(
                recipe.classifier,
                recipe.generator,
                x,
                torch.tensor([y]),
                rng=torch.Generator().manual_seed(0),
                oracle=recipe.oracle,
                ids=[name],
            )
            assert isinstance(result, SympatheticResult)
            made = Made(result=result, drawn_with=recipe.drawn_with)
            with self._lock:
                self._made[place, key] = made
                while len(self._made) > _MOST_KEPT:
                    self._made.popitem(last=False)
            return made


def _autoencoder(spec: object, networks: Networks) -> Generator | None:
    """Return a generator that can encode and needs no condition; None for another, or one that cannot be loaded."""
    if not spec:
        return None
    try:
        generator = networks.generator(str(spec))
    except FailscapeError:
        return None
    return generator if isinstance(generator, Autoencoder) and generator.condition_space is None else None


def _oracle(steps: list[Step], networks: Networks) -> Classifier | None:
    spec = next((step.record["oracle"] for step in steps if step.record.get("oracle")), None)
    return networks.classifier(str(spec)) if spec else None
