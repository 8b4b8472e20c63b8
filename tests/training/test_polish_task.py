import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from failscape.classifiers import Classifier, classifier_features
from failscape.data import ImageSet
from failscape.errors import ClassifierError, ConfigError, UnsupportedClassifier, UnsupportedGenerator
from failscape.generators import VAE, Condition, StyleGAN2, save_generator
from failscape.training import PolishSettings, PolishTask, polish_task, resume_run, start_run
from failscape.training.conditions import ConditionPool
from failscape.training.guidance import condition_loss


@pytest.fixture
def start(images: ImageSet, stripes_classifier: Classifier) -> StyleGAN2:
    """An untrained generator of what the classifier says."""
    pool = ConditionPool(images, stripes_classifier, batch=16, score="confidence", embedding="fourier")
    assert pool.space is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return StyleGAN2(
            image_shape=images.image_shape, channels=(8, 8), latent_dim=4, style_dim=8, condition=pool.space.config
        )


@pytest.fixture
def settings() -> PolishSettings:
    return PolishSettings(
        images=3200, batch=32, warmup=64, learning_rate=5e-3, bf16=False, encoder_from=1.0, guidance=0.0, anchor=0.0
    )


def polished(task: PolishTask, settings: PolishSettings, images: ImageSet) -> StyleGAN2:
    """The generator after all steps, without the loop around them."""
    sampler, rng = task.sampler(images, 0), torch.Generator().manual_seed(0)
    for seen in range(0, settings.images, settings.batch):
        rows = sampler.indices(seen, settings.batch)
        task.step(images.x[rows], images.y[rows], progress=seen / settings.images, rng=rng)
        task.average(0.9)
    generator = task.judged
    assert isinstance(generator, StyleGAN2)
    return generator


@torch.no_grad()
def drawn(generator: StyleGAN2, condition: Condition) -> Tensor:
    return generator.sample(len(condition), condition=condition, rng=torch.Generator().manual_seed(9))


def gap(judge: Classifier, x: Tensor, real: Tensor, y: Tensor) -> float:
    """The squared distance of the mean features of real and generated images, a mean over the classes."""
    with torch.no_grad():
        difference = classifier_features(judge, x)[0] - classifier_features(judge, real)[0]
    return float(torch.stack([difference[y == k].mean(dim=0).square().sum() for k in y.unique()]).mean())


def test_means_come_together_in_the_features_of_all_that_match(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 2))
    other = Classifier(network, class_names=images.class_names, image_shape=images.image_shape)
    both = (stripes_classifier, other)
    task = PolishTask(settings, images=images, start=start, classifier=stripes_classifier, matched_by=both)
    condition = task.pool.conditions
    assert condition is not None
    before = [gap(judge, drawn(start, condition), images.x, condition.y) for judge in both]

    after = polished(task, settings, images)

    for judge, first in zip(both, before, strict=True):
        assert gap(judge, drawn(after, condition), images.x, condition.y) < 0.3 * first


def test_guidance_brings_more_images_to_their_class(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    guided = settings.model_copy(update={"matching": 0.0, "guidance": 1.0})
    task = PolishTask(guided, images=images, start=start, classifier=stripes_classifier)
    condition = task.pool.conditions
    assert condition is not None

    def kept(generator: StyleGAN2) -> float:
        return float((stripes_classifier.predict(drawn(generator, condition)) == condition.y).float().mean())

    assert kept(start) < 0.7
    assert kept(polished(task, guided, images)) > 0.9


def test_means_are_of_what_real_images_are_and_guidance_of_even_requests(
    settings: PolishSettings,
    images: ImageSet,
    start: StyleGAN2,
    stripes_classifier: Classifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = settings.model_copy(update={"guidance": 1.0, "guided": 400})
    task = PolishTask(told, images=images, start=start, classifier=stripes_classifier)
    asked, matched = [], []

    def loss(logits: Tensor, condition: Condition, *, score: str) -> Tensor:
        asked.append(condition)
        return condition_loss(logits, condition, score=score)

    def match(fake: Tensor, condition: Condition, *, pace: float) -> tuple[dict[str, Tensor], Tensor]:
        matched.append(condition)
        return {}, torch.zeros_like(fake)

    monkeypatch.setattr(polish_task, "condition_loss", loss)
    monkeypatch.setattr(task._matching, "forward", match)
    task.step(images.x[:16], images.y[:16], progress=0.5, rng=torch.Generator().manual_seed(0))

    assert task.pool.conditions is not None
    assert torch.equal(matched[0].y, task.pool.conditions.y[:16])
    torch.testing.assert_close(matched[0].score, task.pool.conditions.score[:16])
    assert asked[0].y.float().mean() == pytest.approx(0.5, abs=0.1)
    # Evenly over what each class supports, from 0.5 on.
    low, high = torch.tensor(task.pool.space.supported)[asked[0].y].unbind(dim=1)
    place = (asked[0].score - low.clamp_min(0.5)) / (high - low.clamp_min(0.5))
    assert place.quantile(torch.tensor([0.25, 0.5, 0.75]).to(place)).tolist() == pytest.approx(
        [0.25, 0.5, 0.75], abs=0.1
    )


def test_sparsity_takes_the_score_from_styles_and_keeps_the_images(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    changes = {"matching": 0.0, "sparsity": 10.0, "anchor": 1e3, "images": 6400, "learning_rate": 1e-2}
    told = settings.model_copy(update=changes)
    task = PolishTask(told, images=images, start=start, classifier=stripes_classifier)
    z, y = start.sample_latents(200, rng=torch.Generator().manual_seed(3)), torch.arange(200) % 2

    @torch.no_grad()
    def moves(generator: StyleGAN2) -> Tensor:
        """How far each style moves between the ends of the scores, in its deviations."""
        low, high = torch.tensor(task.pool.space.supported)[y].unbind(dim=1)
        ends = [generator.styles(generator.mapping(z, Condition(y=y, score=score))) for score in (low, high)]
        return (ends[0] - ends[1]).abs().mean(dim=0) / ends[0].std(dim=0)

    after = polished(task, told, images)

    assert float(moves(after).median()) < 0.5 * float(moves(start).median())
    condition = task.pool.conditions
    first = drawn(start, condition)
    assert float((drawn(after, condition) - first).square().mean()) < 0.05 * float(first.var())


def test_sparsity_of_a_single_image_is_finite(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    told = settings.model_copy(update={"matching": 0.0, "sparsity": 1.0})
    task = PolishTask(told, images=images, start=start, classifier=stripes_classifier)
    losses = task.step(images.x[:1], images.y[:1], progress=0.5, rng=torch.Generator().manual_seed(0))
    assert bool(losses["sparsity"].isfinite())


def test_an_anchor_holds_it_where_it_was(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    moved = {}
    for anchor in (0.0, 1e5):
        told = settings.model_copy(update={"anchor": anchor, "images": 640})
        task = PolishTask(told, images=images, start=start, classifier=stripes_classifier)
        condition = task.pool.conditions
        assert condition is not None
        first = drawn(start, condition)
        moved[anchor] = float((drawn(polished(task, told, images), condition) - first).square().mean())
    assert moved[1e5] < 0.1 * moved[0.0]


def test_the_encoder_learns_the_latents_of_what_is_drawn(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    told = settings.model_copy(update={"encoder_from": 0.0, "matching": 0.0})
    task = PolishTask(told, images=images, start=start, classifier=stripes_classifier)
    rng, losses = torch.Generator().manual_seed(0), []
    for step in range(100):
        rows = torch.arange(32) + 32 * (step % 5)
        result = task.step(images.x[rows], images.y[rows], progress=step / 100, rng=rng)
        losses.append(float(result["encoder_latent"]))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_what_cannot_be_polished_is_refused(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    blind = Classifier(lambda x: torch.zeros(len(x), 2), name="blind", image_shape=images.image_shape)
    with pytest.raises(UnsupportedClassifier, match="gradients for polishing, but blind has none"):
        PolishTask(settings, images=images, start=start, classifier=stripes_classifier, matched_by=[blind])
    small = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), image_shape=(1, 2, 2), name="small")
    with pytest.raises(ClassifierError, match=r"\(1, 8, 8\).*but small takes \(1, 2, 2\)"):
        PolishTask(settings, images=images, start=start, classifier=stripes_classifier, matched_by=[small])
    for other, words in (
        (VAE(image_shape=images.image_shape, latent_dim=2, hidden=(4,)), "but got a vae .* without a condition"),
        (StyleGAN2(image_shape=(1, 16, 16), channels=(4, 4), condition=start.config["condition"]), r"\(1, 16, 16\)"),
        (StyleGAN2(image_shape=(1, 8, 8), channels=(4, 4), condition={"num_classes": 3}), "conditions of 3"),
    ):
        with pytest.raises(UnsupportedGenerator, match=words):
            PolishTask(settings, images=images, start=other, classifier=stripes_classifier)


def test_the_mean_that_truncation_pulls_to_follows(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    start.mean_w += 3
    after = polished(PolishTask(settings, images=images, start=start, classifier=stripes_classifier), settings, images)
    assert after.mean_w.mean() < start.mean_w.mean() - 1


@pytest.mark.parametrize("score", ["entropy", "vector"])
def test_generators_of_other_scores_are_polished_too(
    score: str, settings: PolishSettings, images: ImageSet, stripes_classifier: Classifier
) -> None:
    pool = ConditionPool(images, stripes_classifier, batch=16, score=score, embedding="fourier")
    assert pool.space is not None
    start = StyleGAN2(image_shape=(1, 8, 8), channels=(4, 4), latent_dim=2, style_dim=4, condition=pool.space.config)
    told = settings.model_copy(update={"guidance": 1.0, "sparsity": 1.0, "anchor": 1.0, "encoder_from": 0.0})
    task = PolishTask(told, images=images, start=start, classifier=stripes_classifier)
    # An odd number, as the last batch may be.
    losses = task.step(images.x[:7], images.y[:7], progress=0.5, rng=torch.Generator().manual_seed(0))
    assert losses.keys() == {"anchor", "matching", "spread", "guidance", "sparsity", "encoder_latent", "encoder_pixels"}
    assert all(bool(loss.isfinite()) for loss in losses.values())


def test_whole_distributions_of_every_class_are_asked_for_also_where_the_validation_has_one_class(
    settings: PolishSettings, images: ImageSet, unseen: ImageSet, stripes_classifier: Classifier
) -> None:
    pool = ConditionPool(images, stripes_classifier, batch=16, score="vector", embedding="fourier")
    assert pool.space is not None
    config = {"image_shape": images.image_shape, "channels": (8, 8), "latent_dim": 4, "style_dim": 8}
    start = StyleGAN2(**config, condition=pool.space.config)
    task = PolishTask(settings, images=images, start=start, classifier=stripes_classifier)
    reached = task.evaluate(unseen.select(unseen.y == 0))
    assert {"frechet", "spearman", "mean_error", "class"} <= reached.keys()


def test_what_is_not_finite_is_said_by_the_loss(
    settings: PolishSettings, images: ImageSet, start: StyleGAN2, stripes_classifier: Classifier
) -> None:
    with torch.no_grad():
        start.first += torch.nan
    task = PolishTask(settings, images=images, start=start, classifier=stripes_classifier)
    losses = task.step(images.x[:8], images.y[:8], progress=0.0, rng=torch.Generator().manual_seed(0))
    assert losses["anchor"].isnan()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matching": 0.0, "guidance": 0.0}, "all are 0"),
        ({"oracle": "embedded:mnist-clean", "matched_by": ["embedded:mnist-clean"]}, "an oracle that takes no part"),
        ({"oracle": "embedded:mnist-corrupted"}, "an oracle that takes no part"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PolishSettings.parse(changes)


def test_a_run_goes_on_without_what_it_began_with(
    start: StyleGAN2, stripes_file: Path, stripes_classifier_folder: Path, tmp_path: Path
) -> None:
    save_generator(start, tmp_path / "start")
    data = {"data": str(stripes_file), "validation": "none", "classifier": str(stripes_classifier_folder)}
    few = {"start": str(tmp_path / "start"), "images": 96, "batch": 32, "warmup": 0, "checkpoint_every": 32}
    run = start_run(PolishSettings.parse(data | few), tmp_path / "out")
    weights = (run / "generator.safetensors").read_bytes()
    for path in ((run / "checkpoints").glob("*96.*"), tmp_path.glob("start/*"), run.glob("generator.*")):
        for file in path:
            file.unlink()

    resume_run(run)

    assert (run / "generator.safetensors").read_bytes() == weights


def test_a_run_says_what_it_began_with(
    start: StyleGAN2, stripes_file: Path, stripes_classifier_folder: Path, tmp_path: Path
) -> None:
    save_generator(start, tmp_path / "start", provenance={"command": "by hand"})
    data = {"data": str(stripes_file), "validation": str(stripes_file), "classifier": str(stripes_classifier_folder)}
    few = {"start": str(tmp_path / "start"), "images": 96, "batch": 32, "warmup": 0, "log_every": 32}
    settings = PolishSettings.parse(data | few)
    run = start_run(settings, tmp_path / "out")
    provenance = json.loads((run / "generator.json").read_text())["provenance"]
    assert provenance["start"] == {"command": "by hand"}
    assert {"frechet", "class", "reconstruction"} <= provenance["reached"].keys()
    losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if '"losses"' in line]
    assert {"anchor", "matching", "guidance", "encoder_latent"} <= losses[-1].keys()
