import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import softplus

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import (
    CheckpointError,
    ClassifierError,
    DataError,
    GeneratorError,
    TrainingError,
    UnsupportedClassifier,
)
from failscape.generators import MLP, StyleGAN2, load_generator
from failscape.training import GANSettings, GANTask, Task, start_run, train
from failscape.training.checkpoint import load_checkpoint
from failscape.training.sample_grid import write_sample_grid
from failscape.training.sampler import Sampler


@pytest.fixture
def plain(gan_settings: GANSettings) -> GANSettings:
    """The plain game: no guidance, no penalty on generated images, no augmentation, no encoder."""
    changes = {"guidance": 0.0, "r2": 0.0, "augment": "none", "encoder_from": 1.0}
    return gan_settings.model_copy(update=changes)


def weights(task: GANTask) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in task.networks.parameters()]


def step(task: GANTask, images: ImageSet, *, progress: float = 0.0, seed: int = 0) -> dict[str, Tensor]:
    return task.step(images.x[:16], images.y[:16], progress=progress, rng=torch.Generator().manual_seed(seed))


def grid_of(task: GANTask, folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    write_sample_grid(task, 64, folder)
    return np.asarray(Image.open(folder / "samples" / "000000064.png"))


@pytest.mark.parametrize("family", ["mlp", pytest.param("stylegan2", marks=pytest.mark.slow)])
def test_comes_nearer_to_the_images(
    family: str,
    plain: GANSettings,
    stripes_classifier: Classifier,
    images: ImageSet,
    unseen: ImageSet,
    tmp_path: Path,
) -> None:
    changes = {"family": family, "images": 3200, "evaluate_every": 3200, "guidance": 0.5, "even_share": 0.25}
    changes |= {"guidance_from": 0.1, "guidance_full": 0.3, "r1": 0.1}
    settings = plain.model_copy(update=changes)
    task = GANTask(settings, images=images, classifier=stripes_classifier)
    before = task.evaluate(unseen)

    reached = train(task, images, tmp_path, settings, validation=unseen)

    assert reached["frechet"] < before["frechet"] / 3
    assert reached["class"] > 0.8


def test_first_weights_depend_on_the_seed_alone(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = [
        weights(GANTask(gan_settings.model_copy(update={"seed": seed}), images=images, classifier=stripes_classifier))
        for seed in (0, 0, 1)
    ]

    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_part_of_a_step_has_its_time(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    task = GANTask(gan_settings, images=images, classifier=stripes_classifier)
    always = {"discriminator", "generator", "told_real", "told_fake"}
    encoder = {"encoder_latent", "encoder_features", "encoder_pixels"}

    seen = [set(step(task, images, progress=progress)) for progress in (0.0, 0.05, 0.2, 0.6)]

    # Penalties come every third step, guidance from 0.1 and the encoder from 0.5.
    assert seen == [always | {"r1", "r2"}, always, always | {"guidance"}, always | {"r1", "r2", "guidance"} | encoder]


@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
def test_both_play_the_game_that_was_asked_for(
    loss: str, plain: GANSettings, stripes_classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = plain.model_copy(update={"loss": loss, "r1": 0.0, "bf16": False})
    task = GANTask(settings, images=images, classifier=stripes_classifier)
    judged, seen = task._judged, list[Tensor]()

    def recorded(*given: Any) -> Tensor:
        seen.append(judged(*given))
        return seen[-1]

    monkeypatch.setattr(task, "_judged", recorded)
    losses = step(task, images)

    # Real and generated in one pass; then the generated ones again, by the discriminator as it is after its step.
    (real, fake), again = seen[0].detach().chunk(2), seen[1].detach()
    if loss == "relativistic":
        expected = softplus(fake - real).mean(), softplus(real - again).mean()
    else:
        expected = (softplus(fake) + softplus(-real)).mean(), softplus(-again).mean()
    torch.testing.assert_close((losses["discriminator"], losses["generator"]), expected)


class TestLazyPenalties:
    """A penalty at each fourth step counts four times, and its step is one of five of the discriminator's."""

    def test_count_as_often_as_they_are_left_out(
        self, plain: GANSettings, stripes_classifier: Classifier, images: ImageSet
    ) -> None:
        # In 4 steps the gradient of 4 penalties of weight 0.5 and 0.25, in one.
        gradients = []
        for changes in ({"penalty_every": 4, "r1": 0.5, "r2": 0.25}, {"penalty_every": 1, "r1": 2.0, "r2": 1.0}):
            settings = plain.model_copy(update=changes | {"bf16": False})
            task = GANTask(settings, images=images, classifier=stripes_classifier)
            x, condition = images.x[:16], task.pool.conditions_of(images.x[:16], images.y[:16])
            task._step_penalties(x, x.flip(0), condition, torch.Generator().manual_seed(0))
            discriminator = task.networks["discriminator"].parameters()
            gradients.append(torch.cat([p.grad.flatten() for p in discriminator if p.grad is not None]))
        assert float(gradients[0].norm()) > 0
        torch.testing.assert_close(*gradients)

    def test_in_bfloat16_they_pull_the_same_way(
        self, plain: GANSettings, stripes_classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Emulated where the processor has no instructions for it.
        monkeypatch.setattr("failscape.training.precision.computes_bf16", lambda device: True)
        penalties, gradients = [], []
        for bf16 in (True, False):
            task = GANTask(plain.model_copy(update={"bf16": bf16}), images=images, classifier=stripes_classifier)
            x, condition = images.x[:16], task.pool.conditions_of(images.x[:16], images.y[:16])
            found = task._step_penalties(x, x.flip(0), condition, torch.Generator().manual_seed(0))
            discriminator = task.networks["discriminator"].parameters()
            penalties.append(found["r1"].item())
            gradients.append(torch.cat([p.grad.flatten() for p in discriminator if p.grad is not None]))
        assert penalties[0] != penalties[1]
        assert penalties[0] == pytest.approx(penalties[1], rel=0.05)
        assert torch.cosine_similarity(*gradients, dim=0) > 0.99

    def test_slow_the_discriminator_and_lengthen_its_memory_to_match(
        self, plain: GANSettings, stripes_classifier: Classifier, images: ImageSet
    ) -> None:
        settings = plain.model_copy(update={"penalty_every": 4})
        task = GANTask(settings, images=images, classifier=stripes_classifier)
        step(task, images)
        mine, theirs = (task.optimizers[name].param_groups[0] for name in ("discriminator", "generator"))
        # Five steps of it for each four of the generator's go as far, and forget as much.
        assert 5 * mine["lr"] == pytest.approx(4 * theirs["lr"])
        assert theirs["lr"] == settings.learning_rate
        assert mine["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
        assert mine["betas"][1] ** 5 == pytest.approx(theirs["betas"][1] ** 4)


def test_the_encoder_learns_at_a_rate_that_falls_from_its_own_beginning_on(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    settings = gan_settings.model_copy(update={"decay_from": 0.0, "encoder_from": 0.8})
    task = GANTask(settings, images=images, classifier=stripes_classifier)

    rates = []
    for progress in (0.8, 0.9, 1.0):
        step(task, images, progress=progress)
        rates.append([task.optimizers[name].param_groups[0]["lr"] for name in ("generator", "encoder")])

    peak = settings.learning_rate
    assert [rate[1] / peak for rate in rates] == pytest.approx([0.4, 0.2, 0.0], abs=1e-6)
    # By then there is little left of the generator's.
    assert [rate[0] / peak for rate in rates] == pytest.approx([0.0955, 0.0245, 0.0], abs=1e-3)


def test_the_encoder_learns_what_latents_draw_an_image_again(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet, unseen: ImageSet
) -> None:
    settings = gan_settings.model_copy(update={"family": "stylegan2", "encoder_from": 0.0, "generator_from": 1.0})
    task = GANTask(settings, images=images, classifier=stripes_classifier)
    before = task.evaluate(unseen)["reconstruction"]
    for seed in range(60):
        step(task, images, progress=0.0, seed=seed)
        task.average(0.9)
    assert task.evaluate(unseen)["reconstruction"] < before


def test_the_encoder_is_trained_beside_a_generator_that_does_not_notice(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    def trained(encoder_from: float) -> dict[str, Tensor]:
        settings = gan_settings.model_copy(update={"encoder_from": encoder_from})
        task = GANTask(settings, images=images, classifier=stripes_classifier)
        for seed in range(3):
            step(task, images, progress=0.4, seed=seed)
        return {name: tensor.clone() for name, tensor in task.networks.state_dict().items()}

    without, beside = trained(1.0), trained(0.0)

    changed = {name for name in without if not torch.equal(without[name], beside[name])}
    assert changed
    assert all(name.startswith("generator.encoder.") for name in changed)


def test_without_a_classifier_there_is_no_condition_and_every_image_comes_once(
    plain: GANSettings, images: ImageSet, tmp_path: Path
) -> None:
    task = GANTask(plain.model_copy(update={"classifier": "none", "guidance": 0.5}), images=images)

    assert "guidance" not in step(task, images, progress=1.0)
    assert task.networks["generator"].condition_space is None
    assert isinstance(task.sampler(images, 0), Sampler)
    assert grid_of(task, tmp_path).shape == (8 * 8, 10 * 8)


def test_discriminator_and_encoder_may_be_narrower_than_the_generator(
    plain: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    changes = {"family": "stylegan2", "channels": (6, 5), "discriminator_channels": (4, 3)}
    task = GANTask(plain.model_copy(update=changes), images=images, classifier=stripes_classifier)

    step(task, images)

    sizes = {name: parameter.shape for name, parameter in task.networks.named_parameters()}
    assert sizes["generator.first"][1] == 6
    for trunk in ("generator.encoder.trunk", "discriminator.trunk"):
        assert sizes[f"{trunk}.from_image.weight"][0] == 3
    assert task.judged.config["encoder_channels"] == [4, 3]


def test_begins_with_the_last_networks_of_another_training(
    plain: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    first, second = (GANTask(plain, images=images, classifier=stripes_classifier) for _ in range(2))
    step(first, images)
    first.average(0.5)

    second.begin_with(first.state())

    for name, tensor in first.averaged.state_dict().items():
        assert torch.equal(second.averaged.state_dict()[name], tensor)
        assert torch.equal(second.networks.state_dict()[name], tensor)
    ours, theirs = (task.networks["discriminator"].state_dict() for task in (second, first))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    wider = GANTask(plain.model_copy(update={"hidden": 17, "channels": (9, 8)}), images=images)
    with pytest.raises(CheckpointError, match="of the same networks to begin with, but its content does not fit"):
        wider.begin_with(first.state())


def test_the_discriminator_may_learn_alone_at_first(
    plain: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    settings = plain.model_copy(update={"generator_from": 0.5})
    task = GANTask(settings, images=images, classifier=stripes_classifier)
    before = {name: tensor.clone() for name, tensor in task.networks.named_parameters()}

    def changed(progress: float) -> set[str]:
        step(task, images, progress=progress)
        return {name for name, tensor in task.networks.named_parameters() if not torch.equal(tensor, before[name])}

    early, late = changed(0.4), changed(0.5)

    assert early
    assert all(name.startswith("discriminator.") for name in early)
    assert any(name.startswith("generator.") for name in late)


def test_what_is_saved_is_the_average(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet, unseen: ImageSet, tmp_path: Path
) -> None:
    task = GANTask(gan_settings, images=images, classifier=stripes_classifier)
    reached = train(task, images, tmp_path, gan_settings, validation=unseen)

    task.export(tmp_path, {})

    generator = load_generator(tmp_path)
    assert isinstance(generator, StyleGAN2)
    saved, averaged = generator.state_dict(), task.averaged["generator"].state_dict()
    assert saved.keys() == averaged.keys()
    assert all(torch.equal(saved[name], averaged[name]) for name in saved)
    # The mean latent is no parameter, and follows the network that is trained.
    assert torch.equal(saved["mean_w"], task.networks["generator"].state_dict()["mean_w"])
    assert saved["mean_w"].abs().sum() > 0
    assert generator.condition_space is not None
    assert generator.condition_space.config == task.pool.space.config
    assert task.evaluate(unseen) == {name: reached[name] for name in task.evaluate(unseen)}


def test_a_judge_that_says_the_same_of_all_does_not_end_the_training(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet, unseen: ImageSet
) -> None:
    certain = stripes_classifier.with_temperature(1e-4)
    reached = GANTask(gan_settings, images=images, classifier=certain).evaluate(unseen)

    assert "spearman" not in reached
    assert {"mean_error", "class"} <= reached.keys()


def test_whole_distributions_of_every_class_are_asked_for_also_where_the_validation_has_one_class(
    plain: GANSettings, stripes_classifier: Classifier, images: ImageSet, unseen: ImageSet
) -> None:
    task = GANTask(plain.model_copy(update={"score": "vector"}), images=images, classifier=stripes_classifier)
    reached = task.evaluate(unseen.select(unseen.y == 0))
    assert {"frechet", "spearman", "mean_error", "class"} <= reached.keys()


class TestSampleGrid:
    @pytest.mark.parametrize("score", ["confidence", "entropy", "vector"])
    def test_has_a_column_a_class(
        self,
        score: str,
        gan_settings: GANSettings,
        stripes_classifier: Classifier,
        images: ImageSet,
        tmp_path: Path,
    ) -> None:
        settings = gan_settings.model_copy(update={"score": score})
        task = GANTask(settings, images=images, classifier=stripes_classifier)
        assert grid_of(task, tmp_path).shape == (8 * 8, 2 * 8)

    def test_of_points_there_is_none(self, gan_settings: GANSettings, tmp_path: Path) -> None:
        points = ImageSet.from_tensors(torch.rand(64, 2, 1, 1), torch.arange(64) % 2)
        task = GANTask(gan_settings.model_copy(update={"family": "mlp"}), images=points)
        assert isinstance(task.networks["generator"], MLP)
        assert write_sample_grid(task, 0, tmp_path) == {}
        assert not (tmp_path / "samples").exists()


class TestBadInput:
    def test_guidance_needs_gradients(self, gan_settings: GANSettings, images: ImageSet) -> None:
        rows = np.eye(2, dtype=np.float32)

        def network(x: Tensor) -> Any:
            return rows[(x.mean(dim=(1, 2, 3)) > images.x.mean()).long().numpy()]

        blunt = Classifier(network, class_names=images.class_names, image_shape=images.image_shape)
        with pytest.raises(UnsupportedClassifier, match="--guidance 0"):
            GANTask(gan_settings, images=images, classifier=blunt)
        task = GANTask(gan_settings.model_copy(update={"guidance": 0.0}), images=images, classifier=blunt)
        assert "guidance" not in step(task, images, progress=1.0)
        with pytest.raises(UnsupportedClassifier, match="--guidance 0"):
            GANTask(
                gan_settings.model_copy(update={"guidance": 0.0, "late_guidance": 0.1}), images=images, classifier=blunt
            )

    def test_fewer_images_than_a_batch(
        self, gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
    ) -> None:
        with pytest.raises(DataError, match=r"a batch, 16, but got 9\. Choose a smaller `batch`"):
            GANTask(gan_settings, images=images.select(torch.arange(9)), classifier=stripes_classifier)

    def test_a_class_without_images(
        self, gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
    ) -> None:
        with pytest.raises(DataError, match="none is taken for lying"):
            GANTask(gan_settings, images=images.select(images.y == 0), classifier=stripes_classifier)

    def test_a_size_that_the_family_cannot_draw(
        self, gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
    ) -> None:
        settings = gan_settings.model_copy(update={"channels": (8, 8, 8, 8, 8)})
        with pytest.raises(GeneratorError, match=r"8 × 8\. Give fewer entries in `channels`"):
            GANTask(settings, images=images, classifier=stripes_classifier)

    def test_an_oracle_of_other_images_or_classes(
        self, gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
    ) -> None:
        def judge(side: int, *names: str) -> Classifier:
            network = nn.Sequential(nn.Flatten(), nn.Linear(side * side, len(names)))
            return Classifier(network, class_names=names, image_shape=(1, side, side))

        for oracle in (judge(9, *images.class_names), judge(8, *images.class_names, "other")):
            with pytest.raises(ClassifierError, match=r"Expected an oracle for images of shape \(1, 8, 8\)"):
                GANTask(gan_settings, images=images, classifier=stripes_classifier, oracle=oracle)

    def test_a_device_that_is_missing(
        self, gan_settings: GANSettings, images: ImageSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(TrainingError, match=r"Expected a CUDA device for device = 'cuda'.*--device cpu"):
            GANTask(gan_settings.model_copy(update={"device": "cuda"}), images=images)


@pytest.mark.parametrize(("progress", "weight"), [(0.5, 0.1), (0.85, 0.2), (1.0, 0.3)])
def test_late_guidance_is_added_evenly_to_the_end(
    progress: float, weight: float, plain: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    times = {"guidance_from": 0.0, "guidance_full": 0.0, "late_guidance_from": 0.7, "decay_from": 1.0}
    trained = []
    for changes in ({"guidance": 0.1, "late_guidance": 0.2}, {"guidance": weight}, {"guidance": 0.1}):
        task = GANTask(plain.model_copy(update=times | changes), images=images, classifier=stripes_classifier)
        step(task, images, progress=progress)
        trained.append(torch.cat([p.detach().flatten() for p in task.networks["generator"].parameters()]))
    late, even, early = trained
    assert torch.allclose(late, even, atol=1e-6)
    assert torch.allclose(late, early, atol=1e-6) == (progress < 0.7)


@pytest.mark.parametrize("family", ["mlp", "stylegan2"])
@pytest.mark.parametrize("target", ["upright", "lying"])
def test_a_target_steers_a_generator_without_condition(
    family: str, target: str, plain: GANSettings, stripes_classifier: Classifier, stripes_file: Path, tmp_path: Path
) -> None:
    changes = {"family": family, "images": 1600, "data": str(stripes_file), "evaluate_every": 1600, "target": target}
    changes |= {"guidance": 30.0, "guidance_from": 0.1, "guidance_full": 0.3, "r1": 0.1}
    if family == "mlp":
        changes |= {name: GANSettings.model_fields[name].default for name in ("channels", "style_dim", "encoder_from")}
    run = start_run(GANSettings.parse(plain.model_dump() | changes), tmp_path)

    generator = load_generator(run)
    assert generator.condition_space is None
    said = stripes_classifier.predict(generator.sample(100, rng=torch.Generator().manual_seed(0)))
    assert (said == stripes_classifier.class_names.index(target)).float().mean() > 0.95
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    guided = [record.get("guidance") for record in records if record["event"] == "losses"]
    # Nothing before it begins; then it falls.
    assert guided[0] is None
    assert guided[-1] < 0.7 * next(value for value in guided if value is not None)


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_a_loss_of_nan_stops_at_its_image_and_keeps_the_last_good_checkpoint(
    guidance: float,
    gan_settings: GANSettings,
    stripes_classifier: Classifier,
    images: ImageSet,
    tmp_path: Path,
) -> None:
    changes = {"learning_rate": 1e3, "checkpoint_every": 16, "r1": 0.0, "r2": 0.0}
    changes |= {"guidance": guidance, "guidance_from": 0.0, "guidance_full": 0.0}
    settings = gan_settings.model_copy(update=changes)
    task = GANTask(settings, images=images, classifier=stripes_classifier)

    # The classifier is not blamed for images of NaN that it is asked about.
    with pytest.raises(TrainingError, match="Expected finite") as caught:
        train(task, images, tmp_path, settings)

    count, state = load_checkpoint(tmp_path / "checkpoints")
    assert count >= 16
    assert f"after {count + 16} images" in str(caught.value)
    assert "Train with a lower learning rate." in str(caught.value)
    assert all(tensor.isfinite().all() for tensor in state["task"]["networks"].values())


class TestVictory:
    """A generator that never learns, beside a discriminator that does."""

    @pytest.fixture
    def won(
        self, plain: GANSettings, stripes_classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[GANTask, GANSettings]:
        monkeypatch.setattr("failscape.training.gan_task._MEMORY", 3)
        settings = plain.model_copy(update={"images": 320, "learning_rate": 1e-2})
        task = GANTask(settings, images=images, classifier=stripes_classifier)
        task._rates["generator"] = 0.0
        return task, settings

    def test_is_told_once_with_its_measure(
        self, won: tuple[GANTask, GANSettings], images: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        task, settings = won

        train(task, images, tmp_path, settings)

        (record,) = [record for record in caplog.records if "has won" in record.message]
        assert record.levelno == logging.WARNING
        assert "of the real and" in record.message
        assert "Raise r1" in record.message
        log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        last = [line for line in log if line["event"] == "losses"][-1]
        assert min(last["told_real"], last["told_fake"]) > 0.99

    def test_of_pairs_is_seen_whatever_is_added_to_all_scores(
        self,
        plain: GANSettings,
        stripes_classifier: Classifier,
        images: ImageSet,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The relativistic loss does not know how high all scores are, so it must not count."""
        monkeypatch.setattr("failscape.training.gan_task._MEMORY", 3)
        changes = {"loss": "relativistic", "learning_rate": 1e-2, "augment": "adaptive"}
        games = []
        for added in (0.0, 16.0, -16.0):
            task = GANTask(plain.model_copy(update=changes), images=images, classifier=stripes_classifier)
            task._rates["generator"] = 0.0
            judged = task._judged
            monkeypatch.setattr(
                task, "_judged", lambda *given, added=added, judged=judged, **named: judged(*given, **named) + added
            )
            caplog.clear()
            for seed in range(20):
                step(task, images, seed=seed)
            assert ["has won" in message for message in caplog.messages] == [True]
            games.append(task.state()["game"])
        assert games[0]["told"]["real"] == games[0]["told"]["fake"] > 0.99
        assert games[0]["augmentation"] > 0
        assert games[0] == games[1] == games[2]

    def test_is_not_told_again_by_a_training_that_goes_on(
        self, won: tuple[GANTask, GANSettings], images: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        task, settings = won
        train(task, images, tmp_path, settings)
        again = GANTask(settings, images=images, classifier=task._classifier)
        again.restore(task.state())
        caplog.clear()

        step(again, images)

        assert not caplog.records

    def test_takes_longer_than_the_first_steps_that_any_discriminator_wins(
        self, plain: GANSettings, stripes_classifier: Classifier, images: ImageSet, caplog: pytest.LogCaptureFixture
    ) -> None:
        task = GANTask(plain, images=images, classifier=stripes_classifier)
        task._rates["generator"] = 0.0
        for seed in range(40):
            losses = step(task, images, seed=seed)
        assert losses["told_real"] == losses["told_fake"] == 1
        assert not caplog.records


def test_a_training_that_goes_on_has_the_whole_state_of_the_game(
    gan_settings: GANSettings, stripes_classifier: Classifier, images: ImageSet
) -> None:
    def begun() -> GANTask:
        task = GANTask(gan_settings, images=images, classifier=stripes_classifier)
        # As often as not; by itself it would stay at 0 for as short as this is.
        task._augmentation.probability = 0.5
        return task

    def task_after(*steps: int, task: GANTask | None = None) -> GANTask:
        task = task or begun()
        for seed in steps:
            step(task, images, progress=seed / 6, seed=seed)
            task.average(0.5)
        return task

    def restored(state: dict[str, Any]) -> GANTask:
        task: Task = GANTask(gan_settings, images=images, classifier=stripes_classifier)
        task.restore(state)
        assert isinstance(task, GANTask)
        return task

    whole = task_after(*range(6))
    resumed = task_after(*range(4, 6), task=restored(task_after(*range(4)).state()))

    assert all(map(torch.equal, weights(whole), weights(resumed)))
    assert all(map(torch.equal, whole.averaged.state_dict().values(), resumed.averaged.state_dict().values()))
    assert whole.state()["game"] == resumed.state()["game"]
    assert whole.state()["game"]["augmentation"] > 0.4
