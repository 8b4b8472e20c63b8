from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest


@pytest.fixture
def as_installed() -> Iterator[None]:
    """Switch off the shape checks that only tests have, so that what a user would see is seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def taught_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teach the networks of a second opinion for a few steps only, where it is no matter what they have learnt."""
    monkeypatch.setattr("failscape.explain.second_opinion._LEAST_STEPS", 10)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every influence that is measured adds over how many samples."""
    # Not above: this file is read before the package's shape checks are set up.
    from failscape.explain import shared_influence
    from failscape.explain.style_gradients import measure_influence

    sizes: list[int] = []

    def measure(*arguments: Any, **settings: Any) -> Any:
        sizes.append(arguments[2])
        return measure_influence(*arguments, **settings)

    monkeypatch.setattr(shared_influence, "measure_influence", measure)
    return sizes
