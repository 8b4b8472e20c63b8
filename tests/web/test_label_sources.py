from pathlib import Path

import pytest
import torch
from tests.web.conftest import CLASSES, TITLE

from failscape.errors import LabelStoreError
from failscape.explain import SympatheticResult
from failscape.report.run import read_run
from failscape.web.label_sources import label_sources, make_task
from failscape.web.networks import Networks


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_images_of_each_result_and_new_ones_of_each_generator(toy_run: Path) -> None:
    run = read_run(toy_run)
    sources = {source.key: source for source in label_sources(run)}
    # Both steps name the same networks, so new images are offered once.
    assert list(sources) == ["draw-1", "step-1", "step-2"]
    assert sources["draw-1"].title == "New images drawn by vae, classified by classifier"
    assert (sources["step-1"].title, sources["step-1"].count) == (TITLE, len(run.steps[0].result.images))


def test_drawn_images_are_judged_by_the_networks_of_the_step(toy_run: Path) -> None:
    (source, *_) = label_sources(read_run(toy_run))
    networks = Networks(allow_code=False)
    task = make_task(source, networks, count=7, rng=rng())
    assert len(task) == 7
    assert task.class_names == CLASSES
    assert set(task.origins) == {"generated"}
    probs = networks.classifier(str(source.step.record["classifier"])).probs(task.images / 255)
    assert torch.allclose(task.probs, probs)
    assert task.oracle_probs is not None
    again = make_task(source, networks, count=7, rng=rng())
    assert torch.equal(task.images, again.images)


def test_images_of_a_result_are_its_own_and_chosen_without_repetition(toy_run: Path) -> None:
    run = read_run(toy_run)
    source = label_sources(run)[2]
    task = make_task(source, Networks(allow_code=False), count=3, rng=rng())
    assert set(task.origins) == {"frontier"}
    # A pair on both sides of a boundary is made from one image.
    result = run.steps[1].result
    assert result is not None
    rows = [int(name.rpartition("-")[2]) for name in task.names]
    assert len(set(rows)) == 3
    assert torch.equal(task.images / 255, result.images[rows])
    assert task.sources == tuple(result.ids[row // 2].rpartition("/")[0] for row in rows)
    everything = make_task(source, Networks(allow_code=False), count=5000, rng=rng())
    assert len(everything) == source.count


def test_what_is_made_from_a_given_image_says_so(toy_run: Path) -> None:
    run = read_run(toy_run)
    result = run.steps[0].result
    assert isinstance(result, SympatheticResult)
    task = make_task(label_sources(run)[1], Networks(allow_code=False), count=5000, rng=rng())
    assert set(task.origins) == {"test"}
    assert task.sources == result.ids


@pytest.mark.parametrize("count", [0, 5001])
def test_too_many_images_are_refused(toy_run: Path, count: int) -> None:
    with pytest.raises(LabelStoreError, match="1 to 5,000 images"):
        make_task(label_sources(read_run(toy_run))[0], Networks(allow_code=False), count=count, rng=rng())
