from collections.abc import Iterator

import jaxtyping
import pytest

# Their tests have nothing in common that costs to make, and some take long.
_APART = {"test_examples.py", "test_readme.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, in one of the processes of `make test`, what shares costly fixtures."""
    for item in items:
        if item.path.name not in _APART:
            web = item.path.parent.name == "web"
            group = "web" if web else f"{item.path.parent.name}/{item.path.stem.removesuffix('_result')}"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def as_installed() -> Iterator[None]:
    """Switch off the shape checks that only tests have, so that what a user would see is seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
