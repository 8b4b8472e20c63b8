"""What each order of asking brings, against counts by hand."""

import math
from datetime import UTC, datetime

import pytest
import torch

from failscape.errors import LabelError
from failscape.labels import NOT_ANY, Event, LabelImage, Queue, compare_orders
from failscape.metrics import difference_of_rates, rate_of


def image(name: str, prediction: int) -> LabelImage:
    probs = tuple(1.0 if k == prediction else 0.0 for k in range(3))
    return LabelImage(id=name, name=name, origin="generated", source="", probs=probs, oracle_probs=None, priority=0.0)


def label(number: int, image: str, answer: int | None, queue: Queue | None, who: str = "Ada") -> Event:
    return Event(
        id=number,
        client_id=f"event-{number}",
        image_id=image,
        labeller=who,
        label=answer,
        undoes=1 if answer is None else None,
        time=datetime(2025, 1, 1, tzinfo=UTC),
        seconds=None,
        queue=queue,
    )


def test_shares_and_their_difference() -> None:
    images = [image(str(i), 0) for i in range(20)]
    # What teaches most: 6 of 8 differ, one of them as no class; at random: 2 of 10; of two the order is not known.
    answers = [1, 1, 1, 2, 2, NOT_ANY, 0, 0]
    labels = [label(i, str(i), answer, "teaching") for i, answer in enumerate(answers)]
    labels += [label(i, str(i), 1 if i < 10 else 0, "random") for i in range(8, 18)]
    labels += [label(i, str(i), 1, None) for i in (18, 19)]
    found = compare_orders(labels, images)
    teaching, control = found.orders
    assert (teaching.queue, teaching.labels, teaching.images) == ("teaching", 8, 8)
    assert (control.queue, control.labels, control.images) == ("random", 10, 10)
    assert teaching.differs == rate_of(6, 8)
    assert control.differs == rate_of(2, 10)
    assert found.unknown == 2
    outcomes = (torch.tensor([each != 0 for each in answers]), torch.arange(10) < 2)
    assert found.difference == difference_of_rates(*outcomes)
    assert found.difference.value == pytest.approx(0.55)
    assert found.difference.low > 0


def test_the_labels_of_an_image_are_one_observation() -> None:
    images = [image("a", 0), image("b", 1)]
    said = [("a", 0, "Ada"), ("a", 1, "Bo"), ("b", 0, "Ada"), ("b", 0, "Bo")]
    labels = [label(number, one, answer, "random", who) for number, (one, answer, who) in enumerate(said)]
    teaching, control = compare_orders(labels, images).orders
    assert (control.labels, control.images, control.differs.n) == (4, 2, 2)
    assert control.differs.value == pytest.approx((1 / 2 + 1) / 2)
    assert (teaching.labels, teaching.images) == (0, 0)
    assert math.isnan(teaching.differs.value)


def test_without_labels_nothing_is_known() -> None:
    found = compare_orders([], [image("a", 0)])
    assert found.unknown == 0
    assert math.isnan(found.difference.value)


@pytest.mark.parametrize("wrong", [label(1, "b", 0, "random"), label(2, "a", None, None)])
def test_what_is_no_label_of_the_images_is_refused(wrong: Event) -> None:
    with pytest.raises(LabelError, match="is an undo or of another image"):
        compare_orders([wrong], [image("a", 0)])
