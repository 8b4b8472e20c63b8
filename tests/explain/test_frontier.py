import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import GREY, PLANE, SHAPE, Linear, brighter_than, classes_by, grey_images, never
from torch import Tensor

from failscape import load_classifier, load_generator, load_images
from failscape.classifiers import Classifier
from failscape.errors import GeneratorError, SpecError, UnsupportedClassifier, UnsupportedGenerator
from failscape.explain import Frontier, FrontierResult, Verification, load_result
from failscape.explain.frontier_request import frontier_targets
from failscape.explain.latent_space import LatentSpace
from failscape.figures import PictureMatrix
from failscape.generators import MLP, Condition, ConditionSpace, StyleGAN2

NAMES = ("a", "b", "c")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def searching(**settings: Any) -> Frontier:
    """Search by the classifier's word alone, which is quick."""
    return Frontier(opinions=0, **settings)


def quadrants() -> Classifier:
    """Three classes: how bright the left half, the upper half and the whole are."""
    return classes_by(
        lambda x: 20 * (x[:, :, :2].mean(dim=(1, 2)) - GREY),
        lambda x: 20 * (x[:, :2].mean(dim=(1, 2)) - GREY),
        lambda x: 20 * (x.mean(dim=(1, 2)) - GREY),
    )


def all_found(targets: tuple[str, ...], *, oracle: tuple[float, ...] | None = None) -> FrontierResult:
    """Two images of each target, said to have it; of each the oracle says the same."""
    result = searching(targets=targets, per_target=2, samples=100, restarts=0)(
        brighter_than(GREY), Linear(PLANE), grey_images(), torch.tensor([0, 1, 2]), rng=seeded()
    )
    probs = result.targets[result.asked]
    theirs = None if oracle is None else torch.tensor(oracle).expand(len(probs), 3)
    return replace(result, verification=Verification(probs=probs, oracle_probs=theirs))


class TestTargets:
    def test_every_pair_and_every_triple(self) -> None:
        names, targets = frontier_targets(("pairs",), NAMES)
        assert names == ("a | b", "a | c", "b | c")
        assert torch.equal(targets, torch.tensor([[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]))
        names, targets = frontier_targets(("triples",), (*NAMES, "d"))
        assert names == tuple(" | ".join(three) for three in itertools.combinations((*NAMES, "d"), 3))
        assert torch.allclose(targets.amax(dim=1), torch.tensor(1 / 3))

    def test_what_is_spelled_out(self) -> None:
        names, targets = frontier_targets(("a=0.7,c=0.3", "b,c", "uniform"), NAMES)
        assert names == ("a=0.7,c=0.3", "b | c", "a | b | c")
        assert torch.allclose(targets, torch.tensor([[0.7, 0, 0.3], [0, 0.5, 0.5], [1 / 3] * 3]))

    def test_a_mapping_says_the_same_as_what_is_spelled_out(self) -> None:
        names, targets = frontier_targets(({"a": 0.7, "b": 0.0, "c": 0.3}, {"b": 0.5, "c": 0.5}, {"a": 1.0}), NAMES)
        assert names == ("a=0.7,c=0.3", "b | c", "a")
        assert torch.equal(targets, frontier_targets(("a=0.7,c=0.3", "b,c", "a"), NAMES)[1])

    @pytest.mark.parametrize("target", ["3=0.7,8=0.3", {"3": 0.7, "8": 0.3}])
    def test_one_target_needs_no_tuple(self, target: Any) -> None:
        assert Frontier(targets=target).targets == Frontier(targets=(target,)).targets == (target,)

    def test_several_may_stand_in_a_list(self) -> None:
        for targets in (["pairs"], ["0", "1"], ["0,1", {"3": 0.7, "8": 0.3}]):
            assert Frontier(targets=targets).targets == Frontier(targets=tuple(targets)).targets == tuple(targets)

    @pytest.mark.parametrize("share", ["0.7", None, True, [0.7]])
    def test_a_share_that_is_no_number_is_refused(self, as_installed: None, share: Any) -> None:
        with pytest.raises(SpecError, match="Expected the share of a class as a number, such as"):
            frontier_targets(({"a": share, "b": 0.3},), NAMES)

    def test_a_name_that_is_no_text_is_seen_to_be_none(self, as_installed: None) -> None:
        with pytest.raises(SpecError, match=r"among '3', '8', but got 3\. Name one of these"):
            frontier_targets(({3: 0.7, 8: 0.3},), ("3", "8"))

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("a=0.7,b=0.2", "sum to 0.9"),
            ("a=0.7,b=-0.3,c=0.6", "got -0.3 for 'b'"),
            ("a,x", "got 'x'"),
            ("pair", "pairs, triples, uniform, or classes among 'a', 'b', 'c' as a target, but got 'pair'"),
            ("a=x,b=0.5", "as a number, such as 3=0.7, but got 'a=x'"),
            ({"a": 0.7, "b": 0.2}, "sum to 0.9"),
            ({"a": 1.3, "b": -0.3}, "got -0.3 for 'b'"),
            ({"x": 1.0}, "got 'x'"),
            ({}, "got none"),
        ],
    )
    def test_what_is_no_distribution_is_refused(self, target: Any, words: str) -> None:
        with pytest.raises(SpecError, match=words):
            frontier_targets((target,), NAMES)

    def test_too_few_classes(self) -> None:
        with pytest.raises(SpecError, match="at least 3 classes"):
            frontier_targets(("triples",), ("a", "b"))


class TestPlanted:
    def test_the_frontier_is_where_analysis_says(self) -> None:
        # Of 20 (mean - GREY) a probability of 0.5 is at the grey itself, and 0.7 where the logit is log(7 / 3).
        world, classifier = Linear(PLANE), brighter_than(GREY)
        for target, logit in (("0,1", 0.0), ({"0": 0.3, "1": 0.7}, 0.8473)):
            result = searching(targets=target, per_target=32, tolerance=0.02, samples=500)(
                classifier, world, grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
            )
            assert result.success.all()
            assert result.rates[0].value == 1.0
            mean = result.images.mean(dim=(1, 2, 3))
            # 0.02 of probability is 0.1 of the logit.
            assert (20 * (mean - GREY) - logit).abs().max() < 0.1

    def test_verified_success_is_of_the_images(self) -> None:
        world, classifier = Linear(PLANE), quadrants()
        method = searching(per_target=8, samples=500)
        result = method(classifier, world, grey_images(), torch.tensor([0, 1, 2]), rng=seeded())
        probs = classifier.probs(result.images)
        distance = 0.5 * (probs - result.targets[result.asked]).abs().sum(dim=1)
        assert torch.allclose(result.total_variation, distance, atol=1e-6)
        assert torch.equal(result.success, distance <= 0.05)

    def test_where_there_is_no_frontier_nothing_is_claimed(self) -> None:
        # Class 2 is never likelier than exp(-100): no image has half of it.
        world = Linear(PLANE)
        method = searching(per_target=3, samples=500, restarts=1)
        result = method(brighter_than(GREY), world, grey_images(), torch.tensor([0, 1, 1]), rng=seeded())
        assert [estimate.value for estimate in result.rates] == [1.0, 0.0, 0.0]
        assert result.summary["found"] == 1.0
        atlas = result.figures[0]
        assert isinstance(atlas, PictureMatrix)
        assert [bool(group.panels) for group in atlas.groups] == [True, False, False]
        assert "says something too" in atlas.groups[1].note
        assert result.ways[1] is None

    def test_a_class_that_is_never_drawn_is_named(self) -> None:
        method = searching(per_target=3, samples=500, restarts=1)
        result = method(brighter_than(GREY), Linear(PLANE), grey_images(), torch.tensor([0, 1, 1]), rng=seeded())
        assert result.drawn.sum() == 500
        assert result.never_drawn == ("2",)
        said = " Of 500 samples of the generator the classifier takes none for 2."
        atlas = result.figures[0]
        assert isinstance(atlas, PictureMatrix)
        assert atlas.caption.endswith(said)
        assert [group.note.endswith(said) for group in atlas.groups] == [False, True, True]
        assert result.findings[0].sentence.endswith(said)

    def test_a_class_that_is_found_though_it_is_never_drawn_is_not_blamed(self) -> None:
        # Brighter than any sample, but not than any latent.
        classifier = brighter_than(GREY + 0.38)
        result = searching(targets=("0,1",), per_target=4, samples=500)(
            classifier, Linear(PLANE), grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )
        assert int(result.drawn[1]) == 0
        assert result.rates[0].value > 0
        assert result.never_drawn == ()

    def test_a_seed_decides_everything(self) -> None:
        method = searching(targets=("0,1",), per_target=4, samples=200)
        once, again = (
            method(brighter_than(GREY), Linear(PLANE), grey_images(), torch.tensor([0, 1, 1]), rng=seeded())
            for _ in range(2)
        )
        assert torch.equal(once.images, again.images)

    def test_a_quirk_of_the_classifier_is_not_used_where_there_is_another_way(self) -> None:
        # A fine pattern moves the logit by up to 4, to and fro as it grows: too rough for others to learn.
        pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
        classifier = classes_by(
            lambda x: 0 * x.mean(dim=(1, 2)),
            lambda x: 20 * (x.mean(dim=(1, 2)) - GREY) + 4 * (200 * (x * pattern).mean(dim=(1, 2))).sin(),
            never,
        )
        off = []
        for opinions in (0, 2):
            result = Frontier(targets=("0,1",), per_target=32, samples=2000, opinions=opinions)(
                classifier,
                Linear(torch.stack([torch.ones(4, 4), pattern])),
                grey_images(),
                torch.arange(3),
                rng=seeded(),
            )
            assert result.success.all()
            off.append((20 * (result.images.mean(dim=(1, 2, 3)) - GREY)).abs().mean())
        assert off[1] < 0.6 * off[0]

    @pytest.mark.parametrize("guard", [0, 2])
    def test_a_guard_guides_and_does_not_decide(self, guard: int) -> None:
        # Shifts change nothing of a mean: with and without a guard all arrive, by their own verdict.
        method = searching(targets=("0,1",), per_target=16, samples=300, guard=guard)
        result = method(brighter_than(GREY), Linear(PLANE), grey_images(), torch.tensor([0, 1, 1]), rng=seeded())
        assert result.success.all()
        # Of a classifier that shifts turn round no image has both verdicts even: the image's own is what counts.
        first = classes_by(lambda x: 0 * x.mean(dim=(1, 2)), lambda x: 9 + 40 * (x[:, 0, 0] - x[:, 1, 1]), never)
        result = method(
            first, Linear(torch.eye(16).view(16, 4, 4)), grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )
        assert result.success.all()

    def test_the_oracle_judges_the_classes_and_not_the_shares(self) -> None:
        world, classifier = Linear(PLANE), brighter_than(GREY)
        # It has class 2 first wherever the left is brighter than the right: about half of all images.
        oracle = classes_by(
            lambda x: 0 * x.mean(dim=(1, 2)),
            lambda x: 1 + 0 * x.mean(dim=(1, 2)),
            lambda x: 1e4 * (x[:, :, :2].mean(dim=(1, 2)) - x[:, :, 2:].mean(dim=(1, 2))),
        )
        result = searching(targets=("0,1",), per_target=64, samples=500)(
            classifier, world, grey_images(), torch.tensor([0, 1, 1]), rng=seeded(), oracle=oracle
        )
        left, right = (part.mean(dim=(1, 2)) for part in result.images[:, 0].split(2, dim=2))
        assert result.oracle_agrees is not None
        clear = (left - right).abs() > 1e-3
        assert torch.equal(result.oracle_agrees[clear], (left < right)[clear])
        assert 0.2 < result.estimates["oracle_top"].value < 0.8

    def test_the_most_typical_come_first(self) -> None:
        world = Linear(PLANE)
        result = searching(targets=("0,1",), per_target=32, samples=500)(
            brighter_than(GREY), world, grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )
        order = result.log_prior[result.typical(0)]
        assert (order.diff() <= 0).all()

    def test_what_is_equally_typical_ranks_equally(self) -> None:
        world = Linear(PLANE)
        result = searching(targets=("0,1",), per_target=8, samples=500)(
            brighter_than(GREY), world, grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )
        # Of one density all, the critic alone decides; where it is as fond of two, they stay in order.
        fond = torch.tensor([0.0, 2.0, 1.0, 2.0, 0.0, 3.0, 1.0, 0.0])
        judged = replace(result, log_prior=torch.zeros(8), realism=fond)
        assert judged.typical(0).tolist() == [5, 1, 3, 2, 6, 0, 4, 7]
        # What is equal for all tells nothing apart, and is not named.
        (atlas, *_) = judged.figures
        assert "the most typical image, by the generator's critic, that" in atlas.caption
        (atlas, *_) = replace(judged, log_prior=torch.arange(8.0)).figures
        assert "by the prior's density and by the generator's critic" in atlas.caption
        (atlas, *_) = result.figures
        assert "critic" not in atlas.caption

    @pytest.mark.parametrize(
        ("targets", "ways", "sentence"),
        [
            (
                ("0,1", "0,2", "uniform"),
                (3.0, 2.0, 1.0),
                "Between 0 and 2 the way is shorter for this classifier than between 0 and 1. Images on the frontier "
                "were found for 3 of 3 targets.",
            ),
            (
                ("0,1", "0=0.4,1=0.6"),
                (3.0, 4.0),
                "Between 0 | 1 the way is shorter for this classifier than between 0=0.4,1=0.6. Images on the frontier "
                "were found for 2 of 2 targets.",
            ),
            (
                ("0,1", "0,2", "1,2", "uniform"),
                (3.0, 2.0, 4.0, 1.0),
                "Between 0 and 2 the way is shortest for this classifier, of the known ways between 2 classes. Images "
                "on the frontier were found for 4 of 4 targets.",
            ),
            (("0,1", "uniform"), (3.0, 5.0), "Images on the frontier were found for 2 of 2 targets."),
            (("0,1", "0,2"), (3.0, math.nan), "Images on the frontier were found for 2 of 2 targets."),
            (("0,1",), (3.0,), "Images on the frontier were found for 0 | 1."),
        ],
    )
    def test_shortest_is_said_of_ways_between_equally_many_classes_alone(
        self, targets: tuple[str, ...], ways: tuple[float, ...], sentence: str
    ) -> None:
        result = all_found(targets)
        result = replace(result, way=torch.tensor(ways).repeat_interleave(2))
        assert result.findings[0].sentence == sentence
        assert ("ways" in {figure.name for figure in result.figures}) == ("the way is short" in sentence)

    def test_which_targets_are_shown_is_said_truly(self) -> None:
        targets = tuple({"0": k / 20, "1": 1 - k / 20} for k in range(3, 17))
        result = searching(targets=targets, per_target=1, samples=300)(
            brighter_than(GREY), Linear(PLANE), grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )
        captions = {figure.name: figure.caption for figure in result.figures}
        assert captions["examples"].endswith("Of 14 targets 12 with the shortest ways.")
        unknown = replace(result, way=torch.full((14,), torch.nan))
        captions = {figure.name: figure.caption for figure in unknown.figures}
        assert captions["examples"].endswith("Of 14 targets 12.")

    def test_a_target_of_one_class_has_no_way(self) -> None:
        result = searching(targets=("0", "0,1"), per_target=2, samples=300)(
            brighter_than(GREY), Linear(PLANE), grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )
        assert [way is None for way in result.ways] == [True, False]
        assert "shortest" not in result.findings[0].sentence

    def test_of_all_classes_an_oracle_has_nothing_to_say(self) -> None:
        # It is certain of one class, and still has all three among its first three.
        result = all_found(("0,2", "uniform"), oracle=(0.0, 1.0, 0.0))
        assert result.deniable.tolist() == [True, False]
        assert result.oracle_rates is not None
        pair, uniform = result.oracle_rates
        assert pair is not None
        assert (pair.value, uniform) == (0.0, None)
        assert result.estimates["oracle_agrees"].value == result.estimates["oracle_top"].value == 0.0
        assert result.table["oracle_agrees"].to_pylist() == [False] * 2 + [None] * 2
        atlas = result.figures[0]
        assert isinstance(atlas, PictureMatrix)
        assert "it says nothing here" in atlas.groups[1].note
        assert "same classes first" not in atlas.groups[1].note
        alone = all_found(("uniform",), oracle=(0.0, 1.0, 0.0))
        assert not {"oracle_agrees", "oracle_top"} & set(alone.summary)
        assert len(alone.findings) == 1

    def test_a_way_is_the_sum_to_both_sides(self) -> None:
        world, classifier = Linear(PLANE), brighter_than(GREY, slope=200.0)
        result = searching(targets=("0,1",), per_target=16, samples=2000)(
            classifier, world, grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )
        # Samples lie densely on both sides of the boundary, so the way is short; and it is not zero.
        assert float(result.way.min()) > 0
        assert float(result.way.median()) < 0.5


class TestGarments:
    @pytest.fixture(scope="class")
    @classmethod
    def found(cls) -> FrontierResult:
        # The search is the same by a second opinion that has learnt less.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("failscape.explain.second_opinion._LEAST_STEPS", 100)
            return cls.search()

    @classmethod
    def search(cls) -> FrontierResult:
        classifier, oracle = load_classifier("embedded:fashion"), load_classifier("embedded:fashion-oracle")
        targets = ("Pullover,Coat", "Shirt,T-shirt/top,Dress", "Sandal=0.7,Sneaker=0.3")
        method = Frontier(targets=targets, per_target=8, samples=1000)
        x, y = torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long)
        generator = load_generator("embedded:fashion-wgan")
        return method(classifier, generator, x, y, rng=seeded(), oracle=oracle)

    def test_nearly_all_are_on_the_frontier(self, found: FrontierResult) -> None:
        assert found.success.float().mean() >= 0.95
        classifier = load_classifier("embedded:fashion")
        assert torch.allclose(classifier.probs(found.images), found.verification.probs, atol=1e-5)

    def test_images_are_8_bits_and_differ(self, found: FrontierResult) -> None:
        assert torch.equal((found.images * 255).round() / 255, found.images)
        for part in found.images.split(8):
            assert torch.pdist(part.flatten(1)).min() > 0.5

    def test_summary_table_and_definitions(self, found: FrontierResult) -> None:
        summary, table = found.summary, found.table
        assert table.num_rows == summary["images"] == 24
        assert sum(table["success"].to_pylist()) == int(found.success.sum())
        for name in (*summary, *table.column_names):
            plain = name.removesuffix("_low").removesuffix("_high").removesuffix("_n")
            assert found.definitions.get(name) or found.definitions.get(plain), name

    def test_figures_and_findings(self, found: FrontierResult) -> None:
        for figure in found.figures:
            figure.draw().canvas.draw()
        atlas = found.figures[0]
        assert isinstance(atlas, PictureMatrix)
        # A pair leads to its images from both of its cells; what is no even pair is listed below.
        assert [list(group.cells) for group in atlas.groups] == [[(2, 4), (4, 2)], [], []]
        assert "the way is shorter for this classifier than between" in found.findings[0].sentence

    def test_what_nobody_found_is_said(self, found: FrontierResult) -> None:
        nothing = replace(found, verification=Verification(probs=torch.eye(10)[torch.zeros(24, dtype=torch.long)]))
        assert nothing.summary["found"] == 0.0
        assert nothing.findings[0].sentence == "No image was found on the frontier of any of 3 targets."

    def test_what_is_loaded_says_the_same(self, found: FrontierResult, tmp_path: Path) -> None:
        found.save(tmp_path)
        loaded = load_result(tmp_path)
        assert isinstance(loaded, FrontierResult)
        assert loaded.summary == found.summary
        assert loaded.table.equals(found.table)

    def test_training_draws_from_copies(self) -> None:
        classifier, generator = load_classifier("embedded:fashion"), load_generator("embedded:fashion-wgan")
        before = [weight.clone() for weight in generator.parameters()]
        x = generator.sample(64, rng=seeded())
        method = Frontier(targets=("Pullover,Coat",), by="training", training_steps=2, per_target=4, samples=200)
        result = method(classifier, generator, x, classifier.predict(x), rng=seeded())
        assert len(result.images) == 4
        # How typical they are is told by the encoder; a way is not known, so none is called the shortest.
        assert torch.allclose(result.log_prior, generator.log_prior(generator.encode(result.images)), atol=1e-4)
        assert result.ways == [None]
        assert all("shortest" not in f"{figure.caption}" for figure in result.figures)
        assert all(torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True))


def test_a_training_brings_the_classifier_markedly_nearer_to_the_target() -> None:
    classifier, generator = load_classifier("embedded:mnist-clean"), load_generator("embedded:mnist-vae-10d")
    digits = load_images("embedded:mnist-test").select(torch.arange(1000))
    method = Frontier(targets=("4,9",), by="training", training_steps=60, per_target=100, samples=100)
    result = method(classifier, generator, digits.x, digits.y, rng=seeded())
    drawn = generator.sample(100, rng=seeded())
    before = 0.5 * (classifier.probs(drawn) - result.targets[0]).abs().sum(dim=1)
    assert before.median() > 0.9
    # With the weight of 1 that was once the default it was 0.9 after more than three times as many steps.
    assert result.total_variation.median() < 0.4


def test_styles_are_searched_in_w() -> None:
    classifier = load_classifier("embedded:mnist-corrupted")
    method = searching(targets=("3,8",), per_target=4, samples=500)
    x, y = torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long)
    result = method(classifier, load_generator("embedded:mnist-stylegan2"), x, y, rng=seeded())
    assert result.success.any()


def test_points_are_in_units_of_the_prior() -> None:
    for name in ("mnist-vae-10d", "mnist-stylegan2"):
        generator = load_generator(f"embedded:{name}")
        points = LatentSpace(generator, rng=seeded()).sample(2000, rng=torch.Generator().manual_seed(1))
        assert points.mean(dim=0).abs().max() < 0.15
        assert (points.std(dim=0) - 1).abs().max() < 0.15


class TestBadInput:
    def run(self, generator: Any, classifier: Classifier | None = None, **settings: Any) -> None:
        judged = classifier or brighter_than(GREY)
        Frontier(per_target=2, samples=50, **settings)(
            judged, generator, grey_images(), torch.tensor([0, 1, 1]), rng=seeded()
        )

    def test_a_classifier_without_gradients(self) -> None:
        def hard(x: Tensor) -> Tensor:
            return (x.mean(dim=(1, 2, 3))[:, None].detach() > torch.tensor([0.2, 0.5, 0.7])).float()

        with pytest.raises(UnsupportedClassifier, match="frontiers"):
            self.run(Linear(PLANE), Classifier(hard, image_shape=SHAPE, name="hard"))

    def test_a_condition_without_styles(self) -> None:
        network = MLP(image_shape=SHAPE, latent_dim=2, condition=ConditionSpace(num_classes=3).config)
        with pytest.raises(UnsupportedGenerator, match="Train one without"):
            self.run(network)

    def test_a_class_that_the_generator_was_never_shown(self) -> None:
        space = ConditionSpace(num_classes=3, shares=(0.5, 0.5, 0.0))
        network = StyleGAN2(image_shape=SHAPE, channels=(4,), latent_dim=2, style_dim=4, condition=space.config)
        with pytest.raises(GeneratorError, match="it was shown no image of '2'"):
            self.run(network)

    def test_what_cannot_be_trained_further(self) -> None:
        with pytest.raises(UnsupportedGenerator, match='Set `by` to "search"'):
            self.run(Linear(PLANE), by="training")

    @pytest.mark.parametrize(
        "setting",
        [
            {"targets": ()}, {"per_target": 0}, {"tolerance": 0.0}, {"weight": 0.0}, {"weight": math.inf},
            {"targets": {}}, {"targets": []}, {"targets": (3,)}, {"targets": [None]}, {"targets": 3},
            {"restarts": -1}, {"guard": 5}, {"by": "foo"}, {"by": "both"},
        ],
    )  # fmt: skip
    def test_settings_out_of_range(self, as_installed: None, setting: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="Expected"):
            Frontier(**setting)


class Told(Linear):
    """As bright as the distribution that it is asked for says, but for an offset; latents change little of it."""

    def __init__(self) -> None:
        super().__init__(PLANE, scale=0.005)
        self.condition_space = ConditionSpace(num_classes=3, score="vector")
        self.asked: list[Tensor] = []

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        self.check_condition(condition, len(z))
        assert condition is not None
        assert condition.probs is not None
        self.asked += condition.probs.unique(dim=0)
        bright = (condition.probs[:, 1] / condition.probs[:, 0]).log() / 20
        x: Tensor = GREY + 0.01 + bright[:, None] + z @ self.weight
        return x.clamp(0, 1).unflatten(1, SHAPE)


def test_a_generator_of_whole_distributions_is_asked_for_each_target() -> None:
    # From the grey the latents could reach neither target: it is the condition that leads there.
    generator, classifier = Told(), brighter_than(GREY)
    method = searching(targets=({"0": 0.3, "1": 0.7}, {"0": 0.9, "1": 0.1}), per_target=8, tolerance=0.02, samples=200)
    result = method(classifier, generator, grey_images(), torch.tensor([0, 1, 1]), rng=seeded())
    assert {tuple(row) for row in torch.stack(generator.asked).tolist()} == {
        tuple(row) for row in result.targets.tolist()
    }
    assert result.success.all()
    mean = result.images.mean(dim=(1, 2, 3)).view(2, 8)
    logits = torch.tensor([7 / 3, 1 / 9]).log()
    assert (20 * (mean - GREY) - logits[:, None]).abs().max() < 0.25
    # The search put right what the generator has wrong by itself: 0.2 of the logit.
    alone = torch.tensor([0.7, 0.1]).logit() + 0.2
    assert ((20 * (mean - GREY)).mean(dim=1) - alone).abs().min() > 0.05
    assert (result.samples, int(result.drawn.sum())) == (400, 400)
    with pytest.raises(UnsupportedGenerator, match='Set `by` to "search"'):
        Frontier(by="training")(classifier, generator, grey_images(), torch.tensor([0, 1, 1]), rng=seeded())
