import io
import warnings
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from planted import GREY, PLANE, SHAPE, Linear, brighter_than, grey_images
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import UnsupportedClassifier
from failscape.explain import SympatheticExamples, SympatheticResult
from failscape.explain.perturbed import PerturbedImages, log_odds
from failscape.explain.sympathetic_result import LOCAL_MINIMUM, NOT_FOUND, ROUNDING, UNKNOWN, UNREACHABLE
from failscape.generators import Autoencoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # foolbox imports from places that SciPy has deprecated
    import eagerpy
    from foolbox.attacks import DDNAttack
    from foolbox.criteria import TargetedMisclassification
    from foolbox.models import PyTorchModel


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_a_png(image: Tensor) -> Tensor:
    """Return an image as somebody reads it who was sent the file."""
    file = io.BytesIO()
    Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy()).save(file, "PNG")
    file.seek(0)
    return torch.from_numpy(np.array(Image.open(file))).float()[None] / 255


class TestEquationOne:
    def test_images_are_what_the_formula_says(self, world: Any, boundary: SympatheticResult) -> None:
        x, decoder = world.mistakes.x.double(), deepcopy(world.ten).double()
        with torch.no_grad():
            z = decoder.encode(x)
            exact = (decoder(z + boundary.epsilon) + x - decoder(z)).clamp(0, 1)
        assert torch.allclose(boundary.z.double(), z, atol=1e-4)
        assert (boundary.images - exact).abs().max() <= 0.5 / 255 + 1e-4
        levels = boundary.images * 255
        assert torch.allclose(levels, levels.round(), atol=1e-4)

    def test_the_path_leads_from_the_image_to_its_example(self, world: Any, boundary: SympatheticResult) -> None:
        assert boundary.path[:, 0].abs().max() == 0
        assert torch.equal(boundary.path[:, -1], boundary.epsilon)
        assert torch.allclose(boundary.probs_before, world.classifier.probs(world.mistakes.x), atol=1e-5)
        assert torch.allclose(boundary.line[:, -1], boundary.verification.probs, atol=1e-5)


class TestSuccess:
    @pytest.mark.parametrize("mode", ["boundary", "confident"])
    def test_every_mistake_is_put_right_and_survives_a_png(
        self, mode: str, world: Any, request: pytest.FixtureRequest
    ) -> None:
        result = request.getfixturevalue(mode)
        assert len(result.images) > 50
        assert (world.classifier.predict(world.mistakes.x) != world.mistakes.y).all()
        read = torch.stack([as_a_png(image) for image in result.images])
        probs = world.classifier.network(read).detach().softmax(dim=1)
        assert torch.equal(probs.argmax(dim=1), world.mistakes.y)
        assert torch.allclose(probs, result.verification.probs, atol=1e-4)
        assert result.summary["success"] == 1.0
        assert (probs.gather(1, world.mistakes.y[:, None]) >= result.confidence).all()

    def test_at_the_boundary_two_classes_are_level(self, boundary: SympatheticResult) -> None:
        first, second = boundary.verification.probs.log().topk(2, dim=1).values.T
        # The margin asked for is 0.05; the rest is the step between two 8-bit images.
        assert (first - second).min() > 0.049
        assert (first - second).max() < 0.15

    def test_without_a_guard_confident_is_just_as_confident_as_asked_for(self, world: Any) -> None:
        for confidence in (0.9, 0.6):
            method = SympatheticExamples(mode="confident", confidence=confidence, guard=0.0)
            result = method(world.classifier, world.ten, world.mistakes.x[:20], world.mistakes.y[:20], rng=seeded())
            reached = result.verification.probs.gather(1, result.target[:, None])
            assert reached.min() >= confidence
            assert reached.max() < confidence + 0.02

    def test_the_guard_keeps_the_confidence_under_noise(self, world: Any, confident: SympatheticResult) -> None:
        unguarded = SympatheticExamples(mode="confident", confidence=0.9, guard=0.0)(
            world.classifier, world.ten, world.mistakes.x, world.mistakes.y, rng=seeded(), oracle=world.oracle
        )

        def odds_under_noise(result: SympatheticResult) -> Tensor:
            noise = 0.2 * torch.randn(8, *result.images.shape, generator=seeded(7))
            noisy = (result.images + noise).clamp(0, 1).flatten(0, 1)
            return log_odds(world.classifier.probs(noisy).log(), result.target.repeat(8)).view(8, -1).mean(dim=0)

        guarded, bare = odds_under_noise(confident), odds_under_noise(unguarded)
        assert guarded.mean() > bare.mean()
        assert (guarded > 0).float().mean() > (bare > 0).float().mean()
        assert confident.norm.mean() > unguarded.norm.mean()
        assert confident.oracle_agrees.sum() >= unguarded.oracle_agrees.sum()

    @pytest.mark.parametrize("mode", ["boundary", "confident"])
    def test_the_least_change_of_the_image_is_another_than_the_shortest_latent(
        self, mode: Any, world: Any, request: pytest.FixtureRequest
    ) -> None:
        shortest: SympatheticResult = request.getfixturevalue(mode)
        x, y = world.mistakes.x[:40], world.mistakes.y[:40]
        method = SympatheticExamples(mode=mode, smallest="image", confidence=0.9)
        least = method(world.classifier, world.ten, x, y, rng=seeded())
        assert least.success.all()

        def changed(epsilon: Tensor) -> Tensor:
            with torch.no_grad():
                z = world.ten.encode(x)
                return (world.ten(z + epsilon) - world.ten(z)).abs().mean(dim=(1, 2, 3))

        assert changed(least.epsilon).mean() < 0.97 * changed(shortest.epsilon[:40]).mean()
        assert least.norm.mean() > shortest.norm[:40].mean()
        assert torch.equal(least.path[:, -1], least.epsilon)
        assert (least.steps > shortest.steps[:40]).all()

    def test_to_be_sure_costs_more(self, boundary: SympatheticResult, confident: SympatheticResult) -> None:
        assert boundary.norm.mean() < 0.7 * confident.norm.mean()
        assert (boundary.norm <= 1.05 * confident.norm).all()

    def test_the_paper_procedure_goes_farther(self, boundary: SympatheticResult, baseline: SympatheticResult) -> None:
        both = boundary.success & baseline.success
        assert both.sum() > 50
        assert boundary.norm[both].mean() <= 0.4 * baseline.norm[both].mean()


class AsAttackedModel(nn.Module):
    """Decoder and classifier as one network of the perturbation; row i belongs to image i."""

    def __init__(self, perturbed: PerturbedImages) -> None:
        super().__init__()
        self.perturbed, self.gradients = perturbed, 0

    def forward(self, epsilon: Tensor) -> Tensor:
        self.gradients += int(epsilon.requires_grad)
        return self.perturbed.logits(epsilon, torch.arange(len(epsilon)))


def test_ddn_given_as_many_gradients_finds_no_smaller_norms(world: Any) -> None:
    x, y = world.mistakes.x[:40], world.mistakes.y[:40]
    ours = SympatheticExamples()(world.classifier, world.ten, x, y, rng=seeded())
    perturbed = PerturbedImages(world.classifier, world.ten, x, y)
    network, budget = AsAttackedModel(perturbed).eval(), round(ours.steps.float().mean().item())
    theirs, _, _ = DDNAttack(steps=budget)(
        PyTorchModel(network, bounds=(-100, 100), device="cpu"),
        torch.zeros_like(perturbed.z),
        TargetedMisclassification(eagerpy.astensor(y)),
        epsilons=None,
    )
    assert network.gradients == budget
    solved = perturbed.probs(theirs, torch.arange(40)).argmax(dim=1) == y
    # An oracle that solves nothing would prove nothing.
    assert solved.float().mean() > 0.9
    assert ours.success.float().mean() >= solved.float().mean()
    both = ours.success & solved
    assert ours.norm[both].mean() <= theirs.norm(dim=1)[both].mean()


class TestBaseline:
    def test_is_the_loop_written_by_hand(self, world: Any, baseline: SympatheticResult) -> None:
        rows = baseline.steps.topk(3).indices.tolist()
        assert baseline.steps[rows].min() >= 3
        for row in rows:
            x, y = world.mistakes.x[row : row + 1], world.mistakes.y[row : row + 1]
            z = world.ten.encode(x).detach()
            epsilon, points = torch.zeros(1, 10, requires_grad=True), []
            while True:
                points.append(epsilon.detach())
                logits = world.classifier.network((world.ten(z + epsilon) + x - world.ten(z)).clamp(0, 1))
                if logits.argmax() == y:
                    break
                (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), epsilon)
                epsilon = (epsilon - 0.1 * gradient).detach().requires_grad_()
            assert int(baseline.steps[row]) == len(points) - 1
            assert torch.allclose(baseline.path[row, : len(points)], torch.cat(points), atol=1e-3)
            assert torch.allclose(baseline.epsilon[row], epsilon[0], atol=1e-3)

    def test_gives_up_after_its_steps(self, world: Any) -> None:
        method = SympatheticExamples(mode="fixed-step", step=1e-4, max_steps=3, plane=0)
        result = method(world.classifier, world.ten, world.mistakes.x[:3], world.mistakes.y[:3], rng=seeded())
        assert result.steps.tolist() == [3, 3, 3]
        assert result.reasons == (NOT_FOUND,) * 3


class TestTargets:
    @pytest.fixture
    def correct(self, world: Any) -> Any:
        few = world.images.select(torch.arange(12))
        return few.select(world.classifier.predict(few.x) == few.y)

    def test_another_class_gives_adversarial_examples(self, world: Any, correct: Any) -> None:
        others = (correct.y + 3) % 10
        result = SympatheticExamples()(world.classifier, world.ten, correct.x, others, rng=seeded())
        assert len(others) > 5
        assert result.success.all()
        assert torch.equal(world.classifier.predict(result.images), others)
        assert torch.equal(result.probs_before.argmax(dim=1), correct.y)
        assert result.norm.min() > 0

    @pytest.mark.parametrize("mode", ["boundary", "fixed-step"])
    def test_what_is_right_already_stays_as_it_is(self, mode: Any, world: Any, correct: Any) -> None:
        method = SympatheticExamples(mode=mode, starts=1)
        result = method(world.classifier, world.ten, correct.x, correct.y, rng=seeded())
        assert result.success.all()
        assert result.norm.max() == 0
        assert result.steps.max() <= 1
        assert (result.pixel_distance < 1e-3).all()


class TestRandomness:
    def few(self, world: Any, seed: int = 0, **settings: Any) -> SympatheticResult:
        method = SympatheticExamples(**settings)
        return method(world.classifier, world.ten, world.mistakes.x[:14], world.mistakes.y[:14], rng=seeded(seed))

    def test_same_seed_same_result(self, world: Any) -> None:
        one, two, other = self.few(world), self.few(world), self.few(world, seed=1)
        assert torch.equal(one.epsilon, two.epsilon)
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.path, two.path)
        assert torch.equal(one.steps, two.steps)
        assert not torch.equal(one.epsilon, other.epsilon)

    def test_success_does_not_depend_on_the_batch_size(self, world: Any) -> None:
        whole, parts = self.few(world), self.few(world, batch_size=5)
        assert whole.success.all()
        assert parts.success.all()
        assert parts.norm.mean() <= 1.1 * whole.norm.mean()

    def test_from_anchors_without_restarts_nothing_is_left_to_chance(self, world: Any) -> None:
        settings = {"anchors": world.images.select(torch.arange(300)), "rounds": 0}
        whole = self.few(world, **settings)
        assert whole.success.all()
        assert torch.equal(self.few(world, seed=1, **settings).epsilon, whole.epsilon)
        # A batch of another size rounds otherwise, which may lead a row to another minimum, and that is all.
        parts = self.few(world, batch_size=5, **settings)
        assert parts.success.all()
        assert ((parts.norm - whole.norm).abs() <= 0.02 * whole.norm).float().mean() >= 0.7
        assert not torch.equal(self.few(world, rounds=0).epsilon, whole.epsilon)

    def test_anchors_are_where_the_search_starts(self) -> None:
        # Flat all about, but for bright images: without a start there, there is no gradient to follow.
        def flat(x: Tensor) -> Tensor:
            bright = (x.mean(dim=(1, 2, 3)) - 0.8).clamp_min(-0.05)
            return torch.stack([0 * bright, 20 * bright], dim=1)

        anchors = ImageSet.from_tensors(
            torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, *SHAPE), torch.tensor([0, 1]), ["dark", "bright"]
        )
        arguments = (Classifier(flat, image_shape=SHAPE), Linear(PLANE), grey_images(1), torch.tensor([1]))
        settings: Any = {"plane": 0, "grid": 0, "starts": 2, "rounds": 0, "bank": 1}
        assert not SympatheticExamples(**settings)(*arguments, rng=seeded()).success.any()
        found = SympatheticExamples(anchors=anchors, **settings)(*arguments, rng=seeded())
        assert found.success.all()
        # The mean grey value rises by 0.1 with the first latent.
        assert found.epsilon[0].tolist() == pytest.approx([10 * (0.8 - GREY), 0], abs=0.1)


class TestPlantedBoundary:
    @pytest.mark.parametrize(("mode", "odds"), [("boundary", 0.0), ("confident", 2.1972246)])
    def test_the_nearest_point_is_the_one_known_by_analysis(self, mode: Any, odds: float) -> None:
        # 0.1 a unit of the first latent: log-odds 20 (mean - 0.7) are reached at mean = 0.7 + odds / 20.
        method = SympatheticExamples(mode=mode, confidence=0.9, guard=0.0, plane=0)
        result = method(brighter_than(0.7), Linear(PLANE), grey_images(), torch.ones(3).long(), rng=seeded())
        assert result.success.all()
        exact = 10 * (0.7 + odds / 20 - GREY)
        # One grey level more or less is 0.04 units.
        assert result.norm.tolist() == pytest.approx([exact] * 3, abs=0.05)
        assert result.epsilon[:, 1].abs().max() < 0.2

    def test_norm_in_units_of_the_prior(self) -> None:
        result = SympatheticExamples(plane=0)(
            brighter_than(0.7), Linear(PLANE), grey_images(), torch.ones(3).long(), rng=seeded()
        )
        # E |z|² = D under a standard normal prior.
        assert result.prior_length == pytest.approx(2**0.5, rel=0.03)
        assert torch.allclose(result.norm_prior, result.norm / result.prior_length)


class TestFailures:
    def test_a_class_that_never_wins_is_unreachable(self) -> None:
        result = SympatheticExamples(plane=8, grid=30)(
            brighter_than(0.7), Linear(PLANE), grey_images(), torch.tensor([2, 1, 2]), rng=seeded()
        )
        assert result.success.tolist() == [False, True, False]
        assert result.reachable.tolist() == [0, 1, 0]
        assert result.reasons == (UNREACHABLE, "", UNREACHABLE)
        assert not (result.plane_classes == 2).any()
        assert result.epsilon.isfinite().all()

    def test_one_that_the_steps_did_not_reach_is_blocked(self) -> None:
        method = SympatheticExamples(mode="fixed-step", step=1e-3, max_steps=1, plane=0, grid=30)
        result = method(brighter_than(0.7), Linear(PLANE), grey_images(), torch.tensor([1, 2, 0]), rng=seeded())
        assert result.reasons == (LOCAL_MINIMUM, UNREACHABLE, "")
        assert result.reachable.tolist() == [1, 0, 1]

    def test_what_lies_between_two_grey_levels_is_lost_in_rounding(self) -> None:
        # Every pixel moves alike, from 128 / 255 to just beyond 128.2 / 255, and is rounded back.
        method = SympatheticExamples(mode="fixed-step", step=1e-3, plane=0, grid=0)
        classifier = brighter_than(128.2 / 255)
        result = method(classifier, Linear(PLANE), grey_images(), torch.ones(3).long(), rng=seeded())
        assert result.found.all()
        assert not result.success.any()
        assert result.reasons == (ROUNDING,) * 3
        assert torch.allclose(result.images, grey_images(), atol=1e-6)
        assert result.line[:, -1].argmax(dim=1).tolist() == [0] * 3
        # The search by 8-bit images is not deceived.
        ours = SympatheticExamples(plane=0)(
            classifier, Linear(PLANE), grey_images(), torch.ones(3).long(), rng=seeded()
        )
        assert ours.success.all()

    @pytest.mark.parametrize(("patterns", "grid"), [(PLANE, 0), (PLANE.repeat(2, 1, 1)[:3], 30)])
    def test_without_a_grid_or_a_plane_nobody_knows(self, patterns: Tensor, grid: int) -> None:
        result = SympatheticExamples(grid=grid, plane=0)(
            brighter_than(0.7), Linear(patterns), grey_images(), torch.full((3,), 2), rng=seeded()
        )
        assert result.reachable.tolist() == [UNKNOWN] * 3
        assert result.reasons == (NOT_FOUND,) * 3

    def test_the_grid_is_right_about_the_digits(self, world: Any, plane: SympatheticResult) -> None:
        failed = (~plane.success).nonzero()[:, 0].tolist()
        assert len(failed) < 0.1 * len(plane.ids)
        axis = torch.linspace(-4, 4, 77)
        points = torch.cartesian_prod(axis, axis)
        for row in failed:
            assert plane.reasons[row] == UNREACHABLE
            x = world.mistakes.x[row]
            with torch.no_grad():
                drawn = world.two(points) + x - world.two(world.two.encode(x[None]))
            verdicts = world.classifier.predict((drawn.clamp(0, 1) * 255).round() / 255)
            assert not (verdicts == world.mistakes.y[row]).any()


@pytest.fixture(scope="module")
def mapped(world: Any) -> SympatheticResult:
    x, y = world.mistakes.x[:12], world.mistakes.y[:12]
    return SympatheticExamples(plane=48)(world.classifier, world.two, x, y, rng=seeded())


class TestMaps:
    def test_the_example_lies_in_the_area_of_its_class(self, mapped: SympatheticResult) -> None:
        assert mapped.success.sum() > 8
        for row in mapped.success.nonzero()[:, 0].tolist():
            low_1, high_1, low_2, high_2 = mapped.plane_extent[row].tolist()
            end = mapped.z[row] + mapped.epsilon[row]
            column = round((end[0].item() - low_1) / (high_1 - low_1) * 47)
            line = round((end[1].item() - low_2) / (high_2 - low_2) * 47)
            near = mapped.plane_classes[row, max(line - 1, 0) : line + 2, max(column - 1, 0) : column + 2]
            assert (near == mapped.target[row]).any(), row

    def test_every_map_holds_the_way_of_its_search(self, world: Any, mapped: SympatheticResult) -> None:
        # The published procedure goes far beyond the prior.
        wanderer = SympatheticExamples(mode="fixed-step", plane=4, grid=0)(
            world.classifier, world.two, world.mistakes.x[:40], world.mistakes.y[:40], rng=seeded()
        )
        assert (wanderer.z[:, None] + wanderer.path).abs().max() > 6
        for result in (mapped, wanderer):
            points = torch.cat([result.z[:, None], result.z[:, None] + result.path], dim=1)
            assert (points >= result.plane_extent[:, None, [0, 2]]).all()
            assert (points <= result.plane_extent[:, None, [1, 3]]).all()
        # Most stay within four standard deviations of the prior, and share a map's place.
        assert (mapped.plane_extent[:, 1] == 4).sum() > 8

    def test_areas_and_contours_are_those_of_the_perturbed_images(self, world: Any, mapped: SympatheticResult) -> None:
        row, places = 3, torch.tensor([[5, 40], [20, 7], [31, 31]])
        low_1, high_1, low_2, high_2 = mapped.plane_extent[row].tolist()
        # Rows of the map run along the second coordinate, columns along the first.
        first = low_1 + (high_1 - low_1) * places[:, 1] / 47
        second = low_2 + (high_2 - low_2) * places[:, 0] / 47
        x = world.mistakes.x[row]
        with torch.no_grad():
            drawn = world.two(torch.stack([first, second], dim=1)) + x - world.two(world.two.encode(x[None]))
        log_probs = world.classifier((drawn.clamp(0, 1) * 255).round() / 255).detach().log_softmax(dim=1)
        found = mapped.plane_classes[row][places[:, 0], places[:, 1]]
        assert found.tolist() == log_probs.argmax(dim=1).tolist()
        loss = mapped.plane_loss[row][places[:, 0], places[:, 1]].float()
        assert torch.allclose(loss, -log_probs[:, mapped.target[row]], rtol=0.01, atol=0.01)

    def test_none_in_ten_dimensions(self, boundary: SympatheticResult) -> None:
        assert boundary.plane_classes is None
        assert boundary.plane(0) is None


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"mode": "sideways"}, "`mode`.*'sideways'"),
            ({"smallest": "loudest"}, "`smallest`.*'loudest'"),
            ({"smallest": "image", "mode": "fixed-step"}, '`smallest` to be "latent" in mode "fixed-step"'),
            ({"confidence": 0.0}, r"`confidence`.*0\.0"),
            ({"confidence": 1.0}, r"`confidence`.*1\.0"),
            ({"margin": -0.1}, r"`margin`.*-0\.1"),
            ({"guard": -0.1}, r"`guard`.*-0\.1"),
            ({"step": 0.0}, r"`step`.*0\.0"),
            ({"starts": 0}, "`starts`.*0"),
            ({"steps": 0}, "`steps`.*0"),
            ({"candidates": 0}, "`candidates`"),
            ({"bank": 0}, "`bank`"),
            ({"max_steps": 0}, "`max_steps`"),
            ({"batch_size": 0}, "`batch_size`"),
            ({"rounds": -1}, "`rounds`"),
            ({"plane": 1}, "`plane`"),
            ({"grid": -2}, "`grid`"),
        ],
    )
    def test_out_of_range_are_refused(self, settings: dict[str, Any], message: str, as_installed: None) -> None:
        with pytest.raises(ValueError, match=message):
            SympatheticExamples(**settings)

    def test_a_classifier_without_gradients_is_refused(self) -> None:
        blind = Classifier(lambda x: x.flatten(1)[:, :3].detach().numpy(), image_shape=SHAPE)
        decoder: Autoencoder = Linear(PLANE)
        with pytest.raises(UnsupportedClassifier, match="gradients for sympathetic examples"):
            SympatheticExamples()(blind, decoder, grey_images(), torch.zeros(3).long(), rng=seeded())
