"""Retraining on stripes, upright or lying, of which a classifier was taught some the wrong way round."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.labels.test_exports import say
from torch.nn import functional as F

from failscape.classifiers import build_network, load_classifier, save_classifier
from failscape.data import ImageSet, load_images
from failscape.errors import ClassifierError, ConfigError, DataError, LabelError, LabelStoreError, StorageError
from failscape.explain import RetrainingResult, load_result, to_8_bits
from failscape.explain.retraining_result import ALONE, BEFORE, CONTROL, RETRAINED
from failscape.generators import MLP, VAE, ConditionSpace, load_generator, save_generator
from failscape.labels import NOT_ANY, LabelStore, label_task
from failscape.report import write_report
from failscape.study.candidates import GeneratedImages, KnownImages
from failscape.study.labelled_samples import People, StandIn
from failscape.study.retraining import Retraining, retraining_of, run_retraining
from failscape.study.retraining_config import RetrainingConfig
from failscape.study.retraining_inputs import RetrainingInputs
from failscape.study.run_folder import RunFolder
from failscape.training.checkpoint import has_checkpoint

NAMES = ("upright", "lying")
# Bars from here on were taught the wrong way round; they do not occur in the training data.
FLIPPED = 4


def stripes(n: int, seed: int, places: tuple[int, int] = (2, 6)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return noisy 8 × 8 images with a bright bar, their labels, and where the bar stands."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=rng)
    place = torch.randint(*places, (n,), generator=rng)
    x = 0.1 * torch.rand(n, 1, 8, 8, generator=rng)
    for image, label, at in zip(x, y.tolist(), place.tolist(), strict=True):
        bar = image[:, :, at] if label == 0 else image[:, at]
        bar += 0.9
    return x.clamp(0, 1), y, place


def save(folder: Path, x: torch.Tensor, y: torch.Tensor, *, seed: int) -> None:
    """Train a classifier for a moment, and save it."""
    sizes = {"width": 4}
    recorded = {"data": str(folder.parent / "data.npz"), "validation": str(folder.parent / "test.npz")}
    network = build_network("plain-cnn", seed=seed, image_shape=(1, 8, 8), num_classes=2, **sizes)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    save_classifier(
        folder,
        architecture="plain-cnn",
        sizes=sizes,
        state=network.state_dict(),
        class_names=NAMES,
        image_shape=(1, 8, 8),
        provenance={"settings": recorded},
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with training data, test images, a generator, and classifiers: misled, and two that are right."""
    folder = tmp_path_factory.mktemp("world")
    for name, seed, places in (("data", 0, (2, FLIPPED)), ("test", 1, (2, 6))):
        x, y, _ = stripes(300, seed, places)
        np.savez(folder / f"{name}.npz", x=x.numpy(), y=y.numpy(), class_names=np.array(NAMES))
    x, y, place = stripes(200, 2)
    save(folder / "right", x, y, seed=1)
    save(folder / "judge", x, y, seed=2)
    save(folder / "misled", x, torch.where(place >= FLIPPED, 1 - y, y), seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(image_shape=(1, 8, 8), latent_dim=4, hidden=(32,))
        optimizer = torch.optim.Adam(vae.parameters(), 5e-3)
        for _ in range(250):
            optimizer.zero_grad()
            z = vae.encode(x) + 0.1 * torch.randn(len(x), 4)
            (F.mse_loss(vae(z), x) + 1e-3 * z.square().mean()).backward()
            optimizer.step()
    save_generator(vae.eval(), folder / "generator")
    return folder


def config(world: Path, **changes: object) -> RetrainingConfig:
    given = {
        "classifier": str(world / "misled"),
        "generator": str(world / "generator"),
        "data": str(world / "data.npz"),
        "test": str(world / "test.npz"),
        "labeller": str(world / "right"),
        "judge": str(world / "judge"),
        "labelled": 60,
        "fresh": 80,
        "replicates": 3,
        "one_in": 1,
        "sure": 0.6,
        "images": 5120,
        "learning_rate": 3e-3,
        "share": 0.5,
        "kept": 0.0,
        "corrupted": 8,
    }
    return RetrainingConfig.from_mapping({k: v for k, v in (given | changes).items() if v is not None})


def result_of(run: Path) -> RetrainingResult:
    result = load_result(run / "steps" / "01-retraining")
    assert isinstance(result, RetrainingResult)
    return result


def label_stripes(
    run: Path,
    world: Path,
    n: int,
    *,
    change: dict[int, int | None] | None = None,
    people: tuple[str, ...] = ("Ada",),
    **made: Sequence[str],
) -> torch.Tensor:
    """Store stripes and what people say of them, which is true but where `change` says otherwise; return the truth.

    How they were `made`, by default drawn, is for `label_task`.
    """
    run.mkdir(parents=True, exist_ok=True)
    x, y, _ = stripes(n, 9)
    task = label_task(x, load_classifier(world / "misled"), names=[f"stripe-{i:03d}" for i in range(n)], **made)
    with LabelStore(run) as store:
        rng = torch.Generator().manual_seed(0)
        project = store.create_project(
            "stripes", task, classifier=str(world / "misled"), labellers_per_image=len(people), rng=rng
        )
        for name in people:
            said = dict(enumerate(y.tolist())) | (change or {})
            say(store, project, name, {i: k for i, k in said.items() if k is not None})
    return y


@pytest.fixture(scope="session")
def taught(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which the misled classifier was retrained on 120 labelled stripes."""
    folder = tmp_path_factory.mktemp("taught")
    label_stripes(folder / "labels", world, 120)
    return run_retraining(
        config(world, labels=str(folder / "labels"), labeller=None, labelled=40, images=25600), out=folder
    )


def test_labels_mend_what_was_learnt_the_wrong_way_round(taught: Path) -> None:
    result = result_of(taught)
    assert result.gain.low > 0
    assert result.is_gain_shown
    assert result.summary["wrong_before"] > 0.3
    assert result.ratio.value < 0.5
    # The test images have the same bars, right for half of the places before.
    clean = result.clean.double().mean(dim=(1, 2))
    assert clean[RETRAINED] > clean[BEFORE] + 0.2
    # Its own data holds none of these bars, so that more of it mends nothing.
    assert result.summary["gain_over_data_alone_low"] > 0
    assert result.findings[0].sentence.startswith("Retraining helps")
    assert "in place of a person" not in result.findings[0].sentence
    page = write_report(taught).read_text()
    assert "Retraining helps" in page
    assert "What it costs" in page


def test_what_is_measured_on_was_not_trained_on_and_the_control_is_as_many(world: Path, tmp_path: Path) -> None:
    label_stripes(tmp_path, world, 60)
    settings = {"project": None, "classifier": str(world / "misled"), "class_names": NAMES, "replicates": 3, "seed": 0}
    people = People(tmp_path, labelled=15, **settings)
    measured: list[str] = []
    for replicate in range(3):
        sample = people.sample(replicate)
        assert len(sample.chosen) == len(sample.control) == 15
        assert not set(sample.fresh.ids) & {*sample.chosen.ids, *sample.control.ids}
        assert not set(sample.chosen.ids) & set(sample.control.ids)
        measured += sample.fresh.ids
    assert sorted(measured) == [f"stripe-{i:03d}" for i in range(60)]
    assert people.protocol.endswith("the control is drawn from what is not chosen.")
    # Of 40 that are left 25 are chosen, so that the control lacks ten.
    many = People(tmp_path, labelled=25, **settings)
    assert len(set(many.sample(0).chosen.ids) & set(many.sample(0).control.ids)) == 10
    assert many.protocol.endswith("not chosen, but for up to 10 that are.")
    # By default half of those that are not kept; those that are chosen have the highest priority.
    sample = People(tmp_path, labelled=None, **settings).sample(0)
    assert len(sample.chosen) == 20
    with LabelStore(tmp_path) as store:
        priority = {one.name: one.priority for one in store.images(store.project("stripes").id)}
    left = set(priority) - {*sample.chosen.ids, *sample.fresh.ids}
    assert min(priority[name] for name in sample.chosen.ids) >= max(priority[name] for name in left)


def test_what_was_made_from_the_same_image_is_not_on_both_sides(world: Path, tmp_path: Path) -> None:
    # Pairs, of which every third lacks its twin.
    names = [f"pair-{i // 2}" for i in range(60)]
    label_stripes(tmp_path, world, 60, sources=names, change=dict.fromkeys(range(0, 60, 6)))
    pair = {f"stripe-{i:03d}": name for i, name in enumerate(names)}
    people = People(
        tmp_path, project=None, classifier=str(world / "misled"), class_names=NAMES, labelled=15, replicates=3, seed=0
    )
    measured: list[str] = []
    for replicate in range(3):
        sample = people.sample(replicate)
        fresh, taught = ({pair[name] for name in ids} for ids in (sample.fresh.ids, sample.chosen.ids))
        assert not fresh & (taught | {pair[name] for name in sample.control.ids})
        measured += sample.fresh.ids
    assert len(measured) == len(set(measured)) == 50
    # All from one image leaves nothing to measure on.
    label_stripes(tmp_path / "one", world, 24, sources=["the same"] * 24)
    with pytest.raises(LabelError, match=r"since 24, made from 1, have a class"):
        People(
            tmp_path / "one",
            project=None,
            classifier=str(world / "misled"),
            class_names=NAMES,
            labelled=2,
            replicates=3,
            seed=0,
        )


def test_a_label_is_what_people_say_most_often(world: Path, tmp_path: Path) -> None:
    # Three people agree on 0 and 1, part on 2 and 3, and say of 4 that it is nothing; two have not seen 5 yet.
    y = label_stripes(tmp_path, world, 12, change={2: None, 3: None, 4: NOT_ANY, 5: None}, people=("Ada", "Bo", "Cy"))
    with LabelStore(tmp_path) as store:
        project = store.project("stripes")
        say(store, project, "Ada", {2: 0, 3: 0, 5: 0})
        say(store, project, "Bo", {2: 1, 3: 1})
        say(store, project, "Cy", {2: NOT_ANY, 3: 1})
    people = People(
        tmp_path,
        project="stripes",
        classifier=str(world / "misled"),
        class_names=NAMES,
        labelled=2,
        replicates=2,
        seed=0,
    )
    found = {}
    for replicate in range(2):
        fresh = people.sample(replicate).fresh
        found |= dict(zip(fresh.ids, fresh.y.tolist(), strict=True))
    expected = {f"stripe-{i:03d}": int(y[i]) for i in range(12)} | {"stripe-003": 1}
    left_out = ("stripe-002", "stripe-004", "stripe-005")
    assert found == {name: label for name, label in expected.items() if name not in left_out}
    assert people.labeller == "3 people"
    assert "answer; 1 with fewer labels, 1 on which people are tied and 1 that they put in no class" in people.protocol


def test_an_image_that_a_labelled_one_was_made_from_is_not_tested_on(world: Path, tmp_path: Path) -> None:
    # Every other one is made from a test image, and of three nobody knows from which.
    sources = [f"test-{i:05d}" if i % 2 else "" for i in range(24)]
    origin = ["test" if i % 2 or i < 6 else "generated" for i in range(24)]
    label_stripes(tmp_path, world, 24, origin=origin, sources=sources)
    settings = {"labels": str(tmp_path), "labeller": None, "labelled": 5, "replicates": 2, "images": 64}
    retraining = Retraining(config(world, **settings))
    result = retraining.measure(tmp_path / "trained", progress=lambda message: None)
    assert result.clean.shape[2] == 300 - 12
    kept = torch.tensor([name not in sources for name in load_images(str(world / "test.npz")).ids])
    test = load_images(str(world / "test.npz")).select(kept)
    assert torch.equal(result.clean[BEFORE, 0], load_classifier(world / "misled").predict(test.x) == test.y)
    assert "less 12 that labelled images are or were made from" in result.figures[1].caption
    assert len(result.ids) == 21
    assert "Left out, too, are 3 that come from the images explained, without a record of which." in result.protocol
    every = [f"test-{i:05d}" for i in range(300)]
    label_stripes(tmp_path / "all", world, 300, origin=["test"] * 300, sources=every)
    with pytest.raises(DataError, match=r"all of .*/test\.npz are such\. Name others with --test"):
        Retraining(config(world, **settings | {"labels": str(tmp_path / "all")}))


@pytest.fixture(scope="session")
def stood_in(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which a network stood in for a person, and another judged."""
    return run_retraining(config(world), out=tmp_path_factory.mktemp("stood-in"))


def test_a_stand_in_labels_what_the_generator_draws(stood_in: Path, world: Path) -> None:
    result = result_of(stood_in)
    old, new = ~result.new_frontier, result.new_frontier
    assert (int(old.sum()), int(new.sum())) == (3 * 80, 3 * 40)
    assert torch.equal(result.labels, load_classifier(world / "right").predict(result.images))
    assert result.verification is not None
    assert torch.equal(result.verdicts[BEFORE], load_classifier(world / "misled").predict(result.images))
    assert result.verification.oracle_prediction is not None
    assert torch.equal(result.verification.oracle_prediction, load_classifier(world / "judge").predict(result.images))
    # The retrained classifiers are kept, and say what the result says they do.
    for replicate in range(3):
        (kept,) = (stood_in / "retrained").glob(f"*/retrained-{replicate}")
        rows = result.replicate == replicate
        assert torch.equal(load_classifier(kept).predict(result.images[rows]), result.verdicts[RETRAINED, rows])
    # Beside its labels the labeller says that the classifier got better, whatever the other network says.
    assert result.gain.value > 0
    assert "in place of a person" in result.findings[0].sentence


def test_done_is_not_done_again(stood_in: Path, world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in stood_in.rglob("*") if path.suffix == ".safetensors"}
    said: list[str] = []
    assert run_retraining(config(world), folder=stood_in, progress=said.append) == stood_in
    assert said[-1] == "retraining: done before, inputs unchanged"
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_no_gain_is_said_where_there_is_none(world: Path, tmp_path: Path) -> None:
    # The labeller is the classifier itself, so that nothing is wrong and nothing can be mended.
    (tmp_path / "same").mkdir()
    for file in (world / "right").iterdir():
        (tmp_path / "same" / file.name).write_bytes(file.read_bytes())
    settings = {"classifier": str(world / "right"), "labeller": str(tmp_path / "same"), "judge": None}
    run = run_retraining(config(world, **settings, images=640, learning_rate=1e-5, labelled=20, fresh=20), out=tmp_path)
    result = result_of(run)
    assert not result.is_gain_shown
    assert result.summary["wrong_before"] == 0
    assert result.findings[0].sentence.startswith("No gain shown: ")
    assert result.summary["p_value"] == 1
    assert "No gain shown" in write_report(run).read_text()


def test_a_gain_that_the_judge_does_not_see_is_none(stood_in: Path, taught: Path) -> None:
    result = result_of(taught)
    assert result.verification is not None
    blind = replace(result.verification, oracle_probs=result.verification.probs)
    hidden = replace(result, verification=blind)
    assert hidden.gain.low > 0
    assert not hidden.is_gain_shown
    assert hidden.findings[0].sentence.startswith("No gain shown beyond the labels themselves")
    # As good as the control: helpful, but not by the choice.
    level = result.predictions.clone()
    level[ALONE - 1], level[CONTROL - 1] = result.verdicts[BEFORE], level[RETRAINED - 1]
    same = replace(result, predictions=level)
    assert same.findings[0].sentence.startswith("Retraining helps, but no gain over other labelled images is shown")
    level[ALONE - 1], level[CONTROL - 1] = result.verdicts[BEFORE], result.verdicts[BEFORE]
    better = replace(result, predictions=level)
    assert better.gain_over_control == better.gain
    assert better.findings[0].sentence.startswith("Retraining helps, more than on as many other labelled images")


def test_a_ratio_says_in_how_many_replicates_nothing_was_wrong(stood_in: Path) -> None:
    result = result_of(stood_in)
    assert "Left out" not in result.definitions["ratio"]
    flawless = result.replicate == 1
    right = replace(result, labels=torch.where(flawless, result.verdicts[BEFORE], result.labels))
    assert right.ratio.n == 2
    for key in ("ratio", "ratio_control"):
        assert right.definitions[key].endswith("1 of the 3 replicates, in which nothing was wrong before.")
    # The judge still finds mistakes there.
    assert right.definitions["judged_ratio"] == result.definitions["judged_ratio"]


def test_what_further_training_does_by_itself_is_no_gain(taught: Path) -> None:
    result = result_of(taught)
    level = result.predictions.clone()
    level[ALONE - 1] = level[RETRAINED - 1]
    alike = replace(result, predictions=level)
    assert alike.gain.low > 0
    assert alike.gain_over_data_alone.value == 0
    assert not alike.is_gain_shown
    assert alike.findings[0].sentence.startswith("No gain shown beyond that of further training: ")
    # Nor if the judge sees it in nothing but further training: it is of the old opinion on a third of what was mended.
    assert result.verification is not None
    mended = (result.wrong[BEFORE] & ~result.wrong[RETRAINED]).nonzero()[:, 0]
    third = torch.zeros(len(result.ids), dtype=torch.bool)
    third[mended[::3]] = True
    level[ALONE - 1] = torch.where(third, result.verdicts[BEFORE], result.verdicts[RETRAINED])
    opinion = torch.where(third, result.verdicts[BEFORE], result.labels)
    judged = replace(result.verification, oracle_probs=F.one_hot(opinion, 2).to(result.verification.probs))
    doubted = replace(result, predictions=level, verification=judged)
    assert doubted.gain_over_data_alone.low > 0
    assert doubted.judged_gain is not None
    assert doubted.judged_gain.low > 0
    assert not doubted.is_gain_shown
    assert doubted.findings[0].sentence.startswith("No gain shown beyond the labels themselves")


def first_replicate(result: RetrainingResult) -> RetrainingResult:
    """Return what the first replicate found, as if there were no other."""
    rows = result.replicate == 0
    assert result.verification is not None
    oracle = result.verification.oracle_probs
    assert oracle is not None
    verification = replace(result.verification, probs=result.verification.probs[rows], oracle_probs=oracle[rows])
    return replace(
        result,
        images=result.images[rows],
        ids=tuple(result.ids[row] for row in rows.nonzero()[:, 0].tolist()),
        replicate=result.replicate[rows],
        new_frontier=result.new_frontier[rows],
        group=None if result.group is None else result.group[rows],
        labels=result.labels[rows],
        predictions=result.predictions[:, rows],
        verification=verification,
        clean=result.clean[:, :1],
        corrupted=result.corrupted[:, :1],
        taught=result.taught[:, :1],
    )


def test_one_replicate_has_the_intervals_of_its_images(taught: Path) -> None:
    one = first_replicate(result_of(taught))
    assert one.summary["wrong_before_n"] == len(one.ids)
    assert one.gain.low < one.gain.value < one.gain.high
    assert "over the images" in one.figures[0].caption


def test_what_replicates_of_peoples_labels_share_makes_no_interval_narrower(taught: Path) -> None:
    result = result_of(taught)
    assert result.summary["gain_n"] == len(result.ids) == 120
    assert "largely the same labelled images" in result.definitions["replicates"]
    assert "over the images of all 3 replicates" in result.figures[0].caption
    # Repeated training adds no test image, and a twin no image.
    once, again = (
        replace(
            result,
            clean=result.clean[:, :1].repeat(1, times, 1),
            corrupted=result.corrupted[:, :1].repeat(1, times, 1),
            taught=result.taught[:, :1].repeat(1, times),
        )
        for times in (1, 9)
    )
    for end in ("low", "high"):
        assert again.summary[f"clean_change_{end}"] == pytest.approx(once.summary[f"clean_change_{end}"])
    assert result.verification is not None
    assert result.verification.oracle_probs is not None
    assert result.group is not None
    twins = replace(
        result,
        images=result.images.repeat(2, 1, 1, 1),
        ids=result.ids + tuple(f"{name} again" for name in result.ids),
        replicate=result.replicate.repeat(2),
        new_frontier=result.new_frontier.repeat(2),
        group=result.group.repeat(2),
        labels=result.labels.repeat(2),
        predictions=result.predictions.repeat(1, 2),
        verification=replace(
            result.verification,
            probs=result.verification.probs.repeat(2, 1),
            oracle_probs=result.verification.oracle_probs.repeat(2, 1),
        ),
    )
    for name in ("wrong_before", "gain", "gain_over_control", "ratio_control"):
        keys = (name, f"{name}_low", f"{name}_high")
        assert [twins.summary[key] for key in keys] == pytest.approx([result.summary[key] for key in keys])
    assert result.gain.low < result.gain.value < result.gain.high


def test_a_loss_of_accuracy_is_seen_in_one_replicate(taught: Path) -> None:
    one = first_replicate(result_of(taught))
    clean = one.clean.clone()
    clean[RETRAINED] = False
    ruined = replace(one, clean=clean, corrupted=torch.ones_like(one.corrupted))
    assert ruined.summary["clean_change_high"] < 0
    assert ruined.summary["clean_change_n"] == clean.shape[2]
    sentence = ruined.findings[1].sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert "and 0 % after (lower); 100 % of corrupted" in sentence
    assert sentence.endswith("(no difference shown).")
    # Of a single image nobody knows.
    single = replace(one, corrupted=one.corrupted[:, :, :1])
    assert single.findings[1].sentence.endswith("(whether they differ is not known).")


def test_a_killed_retraining_goes_on(world: Path, tmp_path: Path) -> None:
    settings = config(world, images=6400, replicates=1, labelled=20, fresh=20, judge=None)
    (tmp_path / "config.json").write_text(json.dumps(settings.model_dump(mode="json", exclude_none=True)))
    code = (
        "import json, pathlib, sys, torch; torch.set_num_threads(1)\n"
        "from failscape.study.retraining import run_retraining\n"
        "from failscape.study.retraining_config import RetrainingConfig\n"
        "given = json.loads(pathlib.Path(sys.argv[1]).read_text())\n"
        "run_retraining(RetrainingConfig.from_mapping(given), folder=pathlib.Path(sys.argv[2]))\n"
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "config.json"), str(killed)])
    # In the middle of the second training: the first is complete, and the second has a checkpoint.
    deadline = time.monotonic() + 120
    while not any(has_checkpoint(folder) for folder in killed.glob("retrained/*/control-0/checkpoints")):
        assert child.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (killed / "steps" / "01-retraining").exists()
    (first,) = killed.glob("retrained/*/retrained-0/classifier.safetensors")
    written = first.stat().st_mtime_ns

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_retraining(settings, folder=killed)
        run_retraining(settings, folder=whole)
    finally:
        torch.set_num_threads(threads)
    assert first.stat().st_mtime_ns == written
    ours, reference = result_of(killed), result_of(whole)
    assert torch.equal(ours.predictions, reference.predictions)
    assert ours.summary == pytest.approx(reference.summary, nan_ok=True)
    log = [json.loads(line) for line in (first.parents[1] / "control-0" / "log.jsonl").read_text().splitlines()]
    assert "resume" in [record["event"] for record in log]


def test_a_run_says_what_is_retrained(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "00001-toy"
    run.mkdir(parents=True)
    (run / "study.toml").write_text(
        f'name = "toy"\nimages = {{ spec = "{world}/test.npz" }}\nclassifier = {{ spec = "{world}/misled" }}\n'
        f'oracle = {{ spec = "{world}/judge" }}\ngenerator = {{ spec = "{world}/generator" }}\n'
        '[[steps]]\nmethod = "sympathetic-examples"\n'
    )
    found = retraining_of("latest", {}, out=tmp_path / "runs")
    assert (found.classifier, found.generator, found.judge) == tuple(
        str(world / name) for name in ("misled", "generator", "judge")
    )
    assert (found.data, found.test) == (str(world / "data.npz"), str(world / "test.npz"))
    assert (found.labels, found.labeller) == (str(run), None)
    # The oracle may label instead; then it does not judge.
    found = retraining_of(str(run), {"labeller": str(world / "judge"), "labelled": 7}, out=tmp_path)
    assert (found.labels, found.judge, found.labelled) == (None, None, 7)
    with pytest.raises(StorageError, match="a run folder"):
        retraining_of("latest", {}, out=tmp_path / "none")
    with pytest.raises(ConfigError, match="a readable study"):
        retraining_of(str(world), {}, out=tmp_path)
    # A retraining lends what it was told of the classifier, but not who labelled.
    (run / "study.toml").write_text(config(world, labelled=9).to_toml())
    found = retraining_of(str(run), {}, out=tmp_path)
    assert (found.classifier, found.labels, found.labelled) == (str(world / "misled"), str(run), None)
    with pytest.raises(ConfigError, match="Expected --data, since nothing is recorded"):
        retraining_of(str(run), {"classifier": "python:mine.py:make"}, out=tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"labeller": None}, ConfigError, "but got none"),
        ({"labels": "here"}, ConfigError, "but got labels and labeller"),
        ({"judge": "{world}/right"}, ConfigError, "none may judge its own labels"),
        ({"share": 1.0}, ConfigError, "`share`"),
        ({"labeller": None, "labels": "{world}"}, LabelStoreError, "failscape serve RUN"),
        ({"test": "{world}/data.npz"}, DataError, "not trained on"),
        ({"labeller": "embedded:mnist-clean"}, ClassifierError, "the same images and classes"),
    ],
)
def test_what_cannot_be_done_is_said(
    world: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], words: str
) -> None:
    given = {k: v.format(world=world) if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(error, match=words):
        run_retraining(config(world, **given, images=64), out=tmp_path)


def test_a_stand_in_that_knows_nothing_is_refused(world: Path) -> None:
    blind = load_classifier(world / "right").with_temperature(1e6)
    classifier, generator = load_classifier(world / "misled"), load_generator(world / "generator")
    candidates = GeneratedImages(generator, blind, name="blind", sure=0.6)
    settings = {"labelled": 5, "fresh": 5, "one_in": 64, "sure": 0.6, "seed": 0}
    with pytest.raises(DataError, match=r"Expected blind to be sure enough .* Ask for less certainty"):
        StandIn(classifier, candidates, **settings).sample(0)


def test_the_images_are_those_that_the_classifier_is_least_sure_of(world: Path) -> None:
    # A temperature at which it is not sure of everything.
    classifier = load_classifier(world / "misled").with_temperature(20.0)
    generator = load_generator(world / "generator")
    settings = {"labelled": 50, "fresh": 50, "one_in": 8, "sure": 0.0, "seed": 0}
    candidates = GeneratedImages(generator, load_classifier(world / "right"), name="right")
    stand_in = StandIn(classifier, candidates, **settings)
    sample = stand_in.sample(0)
    margins = []
    for images in (sample.chosen, sample.fresh, sample.control):
        first, second = classifier.probs(images.x).topk(2, dim=1).values.unbind(dim=1)
        margins.append(float((first - second).mean()))
    assert max(margins[:2]) < 0.3 * margins[2]
    assert torch.equal(stand_in.sample(0).chosen.x, sample.chosen.x)
    assert not torch.equal(stand_in.sample(1).chosen.x, sample.chosen.x)
    # Another classifier is unsure of other images.
    other = stand_in.at_frontier_of(load_classifier(world / "right"), 0)
    assert other is not None
    assert len(other) == 25
    assert not torch.equal(other.x[:20], sample.fresh.x[:20])


def test_known_labels_stand_in_for_a_person(world: Path) -> None:
    x, y, _ = stripes(400, 5)
    known = KnownImages(ImageSet.from_tensors(x, y, NAMES, name="known"), name="known stripes")
    settings = {"labelled": 20, "fresh": 10, "one_in": 4, "sure": 0.0, "seed": 0}
    stand_in = StandIn(load_classifier(world / "misled"), known, **settings)
    assert stand_in.labeller == "the known labels of known stripes"
    sample = stand_in.sample(0)
    truth = {bytes(to_8_bits(image[None]).numpy()): int(label) for image, label in zip(x, y, strict=True)}
    seen: list[bytes] = []
    for images in (sample.chosen, sample.control, sample.fresh):
        pixels = [bytes(image[None].numpy()) for image in images.x]
        assert [truth[each] for each in pixels] == images.y.tolist()
        seen += pixels
    assert len(set(seen)) == len(seen), "no image is used twice"
    with pytest.raises(DataError, match="Expected 30 images from known stripes, but got 25"):
        StandIn(load_classifier(world / "misled"), known, **settings | {"labelled": 30}).sample(0)


def test_another_go_through_a_part_of_known_images_is_the_part() -> None:
    x, y, _ = stripes(20, 5)
    known = KnownImages(ImageSet.from_tensors(x, y, NAMES, name="known"), name="known stripes")

    def rows(part: int) -> list[int]:
        return [int(row) for images in known.blocks(0, part=part, parts=3) for row in images.indices]

    assert sorted(rows(0) + rows(1) + rows(2)) == list(range(20))
    assert [rows(part + 3) for part in range(3)] == [rows(part) for part in range(3)]


def test_a_generator_of_whole_distributions_is_asked_for_those_of_the_data(world: Path, tmp_path: Path) -> None:
    space = ConditionSpace(num_classes=2, score="vector")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = MLP(image_shape=(1, 8, 8), latent_dim=4, hidden=32, condition=space.config)
    save_generator(generator, tmp_path / "generator")
    candidates = RetrainingInputs(config(world, generator=str(tmp_path / "generator")), allow_code=False).candidates
    images = candidates.take(load_classifier(world / "misled"), 20, one_in=8, seed=0, part=1, parts=3)
    assert len({image.numpy().tobytes() for image in images.x}) == 20
    again = candidates.take(load_classifier(world / "misled"), 20, one_in=8, seed=0, part=1, parts=3)
    assert torch.equal(again.x, images.x)


@pytest.mark.parametrize(("whose", "words"), [("data", "was trained on"), ("test", "is tested on")])
def test_known_images_that_the_classifier_knows_are_refused(
    world: Path, tmp_path: Path, whose: str, words: str
) -> None:
    # Two of its images among others, under other names.
    x, y, _ = stripes(40, 5)
    with np.load(world / f"{whose}.npz") as given:
        x[[3, 20]], y[[3, 20]] = torch.from_numpy(given["x"][7:9]), torch.from_numpy(given["y"][7:9])
    np.savez(tmp_path / "known.npz", x=x.numpy(), y=y.numpy(), class_names=np.array(NAMES))
    known = str(tmp_path / "known.npz")
    with pytest.raises(DataError, match=rf"{words}, but 2 of {known} are in {world}/{whose}\.npz, too\. Name others"):
        Retraining(config(world, labeller=None, judge=None, known=known))


def test_labels_of_the_mistakes_of_another_classifier_are_refused(world: Path, tmp_path: Path) -> None:
    label_stripes(tmp_path, world, 24)
    given = {"labels": str(tmp_path), "labeller": None, "judge": None, "labelled": 5}
    with pytest.raises(
        LabelError, match=rf"to teach {world}/right, but those of 'stripes' were for {world}/misled, .*"
    ):
        Retraining(config(world, **given, classifier=str(world / "right")))
    # Another path to the same is the same.
    Retraining(config(world, **given, classifier=str(world / "right" / ".." / "misled")))


def test_labels_that_do_not_suffice_are_refused(world: Path, tmp_path: Path) -> None:
    settings = {"project": None, "classifier": str(world / "misled"), "class_names": NAMES, "replicates": 2, "seed": 0}
    y = label_stripes(tmp_path / "few", world, 12)
    with pytest.raises(LabelError, match=r"Expected fewer than 6 labelled images .* but got 6\. Ask for fewer"):
        People(tmp_path / "few", labelled=6, **settings)
    with pytest.raises(LabelError, match="labels of the classes of the classifier, ant, bee"):
        People(tmp_path / "few", labelled=2, **settings | {"class_names": ("ant", "bee")})
    lying = {i: None for i in range(12) if y[i] == 1}
    label_stripes(tmp_path / "one", world, 12, change=lying)
    with pytest.raises(LabelError, match="at least 2 classes in stripes, but got only 'upright'"):
        People(tmp_path / "one", labelled=2, **settings)
    label_stripes(tmp_path / "none", world, 12, change=dict.fromkeys(range(12)))
    with pytest.raises(LabelStoreError, match=r"no image has a class yet\. .* --labeller"):
        People(tmp_path / "none", labelled=2, **settings)


def test_a_network_of_ones_own_is_retrained_and_its_weights_are_kept(world: Path, tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(f"import failscape\ndef make():\n    return failscape.load_classifier({str(world / 'misled')!r})\n")
    settings = config(world, classifier=f"python:{code}:make", images=320, replicates=1, labelled=20, fresh=10)
    retraining = Retraining(settings, allow_code=True)
    with RunFolder.open(settings, out=tmp_path, folder=None) as run:
        first = retraining.step(run, index=1, progress=lambda message: None)
    (weights,) = run.path.glob("retrained/*/retrained-0/classifier.safetensors")
    assert not weights.with_suffix(".json").exists()
    written = weights.stat().st_mtime_ns
    # Only the step is made again: the trainings are found complete.
    (run.path / "steps" / "01-retraining" / "step.json").unlink()
    with RunFolder.open(settings, out=tmp_path, folder=run.path) as again:
        second = retraining.step(again, index=1, progress=lambda message: None)
    assert weights.stat().st_mtime_ns == written
    assert torch.equal(first.predictions, second.predictions)
