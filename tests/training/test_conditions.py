import numpy as np
import pytest
import torch
from torch import Tensor, nn

from failscape.classifiers import SCORES, Classifier
from failscape.data import ImageSet
from failscape.errors import ClassifierError, DataError
from failscape.training.conditions import ConditionPool, StratifiedSampler

CONFIDENCES = torch.linspace(0.55, 0.95, 400)


class _FromPixels(nn.Module):
    """Takes the first pixel of an image for the probability of class 1 of two."""

    def forward(self, x: Tensor) -> Tensor:
        p = x[:, 0, 0, 0].double()
        return torch.stack([torch.zeros_like(p), torch.logit(p)], dim=1)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(_FromPixels(), class_names=["dark", "bright"], image_shape=(1, 2, 2))


def image_set(probs: Tensor, y: Tensor | None = None) -> ImageSet:
    """Images that the classifier gives these probabilities of "bright"."""
    x = probs.float()[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return ImageSet.from_tensors(x, torch.zeros(len(x), dtype=torch.long) if y is None else y, ["dark", "bright"])


def pool_of(
    images: ImageSet, classifier: Classifier | None, *, batch: int = 8, score: str = "confidence"
) -> ConditionPool:
    return ConditionPool(images, classifier, batch=batch, score=score, embedding="fourier")


def mostly_sure() -> ImageSet:
    """Every class with 400 confidences from 0.55 to 0.95, and 1,600 more of "bright" at 0.95."""
    return image_set(torch.cat([CONFIDENCES, 1 - CONFIDENCES, torch.full((1600,), 0.95)]))


class TestPool:
    def test_holds_what_the_classifier_says(self, classifier: Classifier) -> None:
        probs = torch.tensor([0.9, 0.2, 0.6, 0.3])
        pool = pool_of(image_set(probs), classifier, batch=4)
        assert pool.conditions is not None
        assert pool.conditions.y.tolist() == [1, 0, 1, 0]
        assert pool.conditions.score.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.7], rel=1e-5)
        assert pool.conditions.probs is None

    @pytest.mark.parametrize("score", SCORES)
    def test_of_any_score(self, classifier: Classifier, score: str) -> None:
        probs, y = torch.tensor([0.9, 0.2, 0.6, 0.3]), torch.tensor([0, 0, 1, 1])
        images = image_set(probs, y)
        pool = pool_of(images, classifier, batch=4, score=score)
        assert pool.conditions is not None
        expected = SCORES[score].of(classifier(images.x), y)
        assert pool.conditions.score.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
        assert pool.conditions.y.tolist() == (y.tolist() if score == "true-class" else [1, 0, 1, 0])

    def test_of_a_whole_distribution_keeps_it(self, classifier: Classifier) -> None:
        probs = torch.tensor([0.9, 0.2, 0.6, 0.3])
        pool = pool_of(image_set(probs), classifier, batch=4, score="vector")
        assert pool.conditions is not None
        assert pool.conditions.probs is not None
        torch.testing.assert_close(pool.conditions.probs, torch.stack([1 - probs, probs], dim=1))
        assert pool.space is not None
        assert pool.space.score == "vector"

    def test_a_class_supports_the_scores_that_its_images_have_but_for_single_ones(self, classifier: Classifier) -> None:
        pool = pool_of(mostly_sure(), classifier)
        assert pool.space is not None
        for label, count in ((0, 400), (1, 2000)):
            low, high = pool.space.supported[label]
            scores = torch.cat([CONFIDENCES, torch.full((count - 400,), 0.95)])
            assert low == pytest.approx(np.quantile(scores.numpy(), 0.001), abs=1e-4)
            assert high == pytest.approx(0.95, abs=1e-4)

    @pytest.mark.parametrize("score", SCORES)
    def test_the_single_ones_are_those_that_the_classifier_is_least_sure_of(
        self, classifier: Classifier, score: str
    ) -> None:
        # Of each class 2,000 sure images and one that is anything but.
        sure = torch.linspace(0.9, 0.99, 2000)
        probs = torch.cat([sure, 1 - sure, torch.tensor([0.51, 0.49])])
        pool = pool_of(image_set(probs, (probs > 0.5).long()), classifier, score=score)
        assert pool.conditions is not None
        assert pool.space is not None
        for label, supported in enumerate(pool.space.supported):
            scores = pool.conditions.score[pool.conditions.y == label]
            outlier = scores.max() if score == "entropy" else scores.min()
            rest = scores[scores != outlier]
            assert len(rest) == 2000
            assert supported == pytest.approx([float(rest.min()), float(rest.max())], abs=2e-3)

    def test_without_a_classifier_there_is_no_condition(self, classifier: Classifier) -> None:
        images = mostly_sure()
        pool = pool_of(images, None)
        assert pool.space is None
        assert pool.conditions is None
        assert pool.conditions_of(images.x[:3], images.y[:3]) is None

    def test_a_class_without_images_is_refused_by_name(self, classifier: Classifier) -> None:
        with pytest.raises(DataError, match=r"none is taken for dark\. Add such images"):
            pool_of(image_set(CONFIDENCES), classifier)

    def test_fewer_images_than_a_batch_are_refused(self, classifier: Classifier) -> None:
        with pytest.raises(DataError, match="at least as many images as a batch, 8, but got 7"):
            pool_of(mostly_sure().select(torch.arange(7)), classifier)

    def test_images_of_another_shape_are_refused(self, classifier: Classifier) -> None:
        images = ImageSet.from_tensors(torch.rand(9, 1, 3, 3), torch.arange(9) % 2)
        with pytest.raises(ClassifierError, match=r"\(1, 2, 2\).*\(1, 3, 3\)"):
            pool_of(images, classifier)

    def test_labels_count_for_the_true_class_only(self, classifier: Classifier) -> None:
        images = mostly_sure()
        renamed = ImageSet.from_tensors(images.x, images.y, ["a", "b"])
        pool_of(renamed, classifier)
        with pytest.raises(ClassifierError, match=r"\('a', 'b'\).*\('dark', 'bright'\)"):
            pool_of(renamed, classifier, score="true-class")


class TestStratifiedSampler:
    @pytest.fixture
    def pool(self, classifier: Classifier) -> ConditionPool:
        return pool_of(mostly_sure(), classifier)

    def drawn(self, pool: ConditionPool, share: float, size: int = 2000) -> tuple[Tensor, Tensor]:
        rows = StratifiedSampler(pool, share=share, seed=0).indices(0, size)
        assert pool.conditions is not None
        assert rows.shape == (size,)
        return pool.conditions.y[rows], pool.conditions.score[rows]

    def test_is_a_function_of_seed_and_position(self, pool: ConditionPool) -> None:
        first, again, other = (StratifiedSampler(pool, share=0.5, seed=seed) for seed in (0, 0, 1))
        first.indices(0, 64)
        assert torch.equal(first.indices(640, 64), again.indices(640, 64))
        assert not torch.equal(first.indices(640, 64), first.indices(704, 64))
        assert not torch.equal(first.indices(640, 64), other.indices(640, 64))

    def test_is_even_over_classes_and_scores(self, pool: ConditionPool) -> None:
        y, scores = self.drawn(pool, 1.0)
        # Binomial: 1000 ± 22 of each class, and 100 ± 10 of each tenth of the scores; five deviations.
        assert abs(int(y.sum()) - 1000) < 112
        for label in (0, 1):
            counts = torch.histc(scores[y == label].float(), 10, 0.55, 0.95)
            # The nearest of equal scores stand in for each other, so the tenth at the top is not counted on.
            assert (counts[:9] - 100).abs().max() < 50

    def test_neighbours_are_of_one_class(self, pool: ConditionPool) -> None:
        y, scores = self.drawn(pool, 0.5, size=64)
        assert (y.diff() >= 0).all()
        # But not sorted by score, so that groups of neighbours see all of a class.
        assert (scores[y == 1].diff() < 0).any()

    def test_a_share_of_none_goes_through_all_images_once(self, pool: ConditionPool) -> None:
        rows = StratifiedSampler(pool, share=0.0, seed=0).indices(0, 2400)
        assert sorted(rows.tolist()) == list(range(2400))

    def test_the_rest_is_drawn_image_after_image(self, pool: ConditionPool) -> None:
        sampler = StratifiedSampler(pool, share=0.5, seed=0)
        rows = torch.cat([sampler.indices(position, 64) for position in range(0, 4800, 64)])
        # Half of 4,800 images are the 2,400 that there are.
        assert rows.unique().numel() == 2400
        _, scores = self.drawn(pool, 0.5)
        # Of all images 0.75 are above 0.9; of those drawn evenly an eighth.
        assert float((scores > 0.9).float().mean()) == pytest.approx((0.75 + 0.125) / 2, abs=0.05)
