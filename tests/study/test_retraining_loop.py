"""Rounds of labelling and retraining, on the stripes of `test_retraining.py`."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.labels.test_exports import say
from tests.study.test_retraining import NAMES, config, stripes, world

from failscape.classifiers import load_classifier
from failscape.errors import ConfigError, DataError
from failscape.explain import LoopResult, load_result
from failscape.labels import NOT_ANY, LabelStore
from failscape.report import write_report
from failscape.study.retraining_config import LoopConfig
from failscape.study.retraining_inputs import settings_of_run
from failscape.study.retraining_loop import CONTROL, FRESH, run_loop
from failscape.training.checkpoint import has_checkpoint

__all__ = ["world"]


def told(world: Path, **changes: object) -> LoopConfig:
    given = config(world).model_dump(mode="json", exclude={"name", "replicates"}, exclude_none=True)
    given |= {"rounds": 2, "labelled": 30, "fresh": 40} | changes
    return LoopConfig.from_mapping({key: value for key, value in given.items() if value is not None})


def result_of(run: Path) -> LoopResult:
    result = load_result(run / "steps" / "01-loop")
    assert isinstance(result, LoopResult)
    return result


@pytest.fixture(scope="session")
def gone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop of two rounds in which a network labelled."""
    run, waiting = run_loop(told(world, images=12800), out=tmp_path_factory.mktemp("gone"))
    assert waiting == ()
    return run


def test_the_same_images_are_measured_on_in_all_rounds_and_trained_on_in_none(gone: Path, world: Path) -> None:
    result = result_of(gone)
    assert result.rounds == 2
    assert len(result.ids) == 40
    assert torch.equal(result.labels, load_classifier(world / "right").predict(result.images))
    assert (result.asked.tolist(), result.labelled.tolist()) == ([30, 30], [30, 60])
    with LabelStore(gone) as store:
        assert [project.name for project in store.projects()] == [FRESH, "round-1", CONTROL, "round-2"]
        labellers = {label.labeller for project in store.projects() for label in store.labels(project.id)}
        pngs = {
            project.name: {store.png(image.id) for image in store.images(project.id)} for project in store.projects()
        }
    assert labellers == {str(world / "right")}
    assert not pngs[FRESH] & (pngs["round-1"] | pngs["round-2"] | pngs[CONTROL])
    # The classifiers that are kept are those that the result tells of, and each was asked what it is unsure of.
    before = load_classifier(world / "misled")
    (first,), (second,) = ((gone / "retrained").glob(f"round-{i}-*") for i in (1, 2))
    for kept, row in ((first, 0), (second, 1)):
        assert torch.equal(load_classifier(kept).predict(result.images), result.predictions[row])
    assert torch.equal(before.predict(result.images), result.verdicts[0])


def test_rounds_mend_what_was_learnt_the_wrong_way_round(gone: Path) -> None:
    result = result_of(gone)
    assert result.summary["wrong_before"] > 0.3
    assert result.gain.low > 0
    # More than its own data do, in which what it learnt the wrong way round does not occur.
    assert result.gain_over_data_alone.low > 0
    alone = replace(result, verification=replace(result.verification, oracle_probs=None))
    sentence = alone.findings[0].sentence
    assert sentence.startswith("The rounds help")
    assert "of 40 fresh images " in sentence
    assert "after training on as many random ones, and " in sentence
    assert sentence.partition("after training on its own data alone")[1]
    assert "in place of a person" in sentence
    page = write_report(gone).read_text()
    assert "Wrong images, round after round" in page
    assert "Against training without these labels" in page
    assert "could not be drawn" not in page


def test_the_control_and_the_data_alone_differ_from_the_last_round_in_the_labelled_images_alone(
    gone: Path, world: Path
) -> None:
    result = result_of(gone)
    assert result.arms == {"data alone": 3, "control": 4}
    assert result.controlled == int(result.labelled[-1]) == 60
    settings = {}
    for name, state in (("round-2", 2), ("data-alone", 3), ("control", 4)):
        (kept,) = (gone / "retrained").glob(f"{name}*")
        assert torch.equal(load_classifier(kept).predict(result.images), result.verdicts[state])
        told = json.loads((kept / "classifier.json").read_text())["provenance"]["settings"]
        settings[name] = {key: value for key, value in told.items() if key != "name"}
    assert settings["round-2"] == settings["data-alone"] == settings["control"]
    # At random, where those of a round are what the classifier of that time is least sure of.
    with LabelStore(gone) as store:
        asked = {name: store.images(store.project(name).id) for name in (FRESH, CONTROL, "round-1")}
        pngs = {name: {store.png(image.id) for image in images} for name, images in asked.items()}
    assert [len(images) for images in asked.values()] == [40, 60, 30]
    assert not pngs[CONTROL] & (pngs[FRESH] | pngs["round-1"])


def test_what_the_rounds_are_held_against(gone: Path) -> None:
    """The sentence for each outcome, with all other states planted, and the numbers by hand."""
    result = result_of(gone)
    assert result.verification is not None
    truth = result.labels
    wrong_way = replace(result.verification, probs=torch.eye(2)[1 - truth], oracle_probs=None)

    def planted(last: int, alone: int, control: int, *, controlled: int = 60) -> LoopResult:
        """Let states be wrong on so many of the 40 fresh images; all are wrong before."""
        states = [torch.where(torch.arange(40) < n, 1 - truth, truth) for n in (40, last, alone, control)]
        kept = states if controlled else states[:3]
        right = [tensor[: 1 + len(kept)] for tensor in (result.clean, result.corrupted)]
        return replace(
            result, verification=wrong_way, predictions=torch.stack(kept), controlled=controlled,
            clean=right[0], corrupted=right[1],
        )  # fmt: skip

    cases = {
        (4, 30, 20): "The rounds help, more than on as many random images: ",
        (4, 30, 4): "The rounds help, but no gain over random images is shown: ",
        (4, 4, 20): "No gain shown beyond that of further training: ",
        (40, 30, 20): "No gain shown: ",
    }
    for wrong, beginning in cases.items():
        found = planted(*wrong)
        assert found.findings[0].sentence.startswith(beginning), (wrong, found.findings[0].sentence)
        assert found.is_gain_shown == beginning.startswith("The rounds help")
        summary = found.summary
        last, alone, control = (n / 40 for n in wrong)
        assert summary["gain_over_control"] == pytest.approx(control - last)
        assert summary["gain_over_data_alone"] == pytest.approx(alone - last)
        assert (summary["wrong_after"], summary["wrong_data_alone"], summary["wrong_control"]) == (last, alone, control)
    fewer = planted(4, 30, 20, controlled=55).findings[0].sentence
    assert fewer.startswith("The rounds help, more than on 55 random images: ")
    assert "after training on 55 random ones, and " in fewer
    without = planted(4, 30, 0, controlled=0)
    assert without.findings[0].sentence.startswith("The rounds help: ")
    assert "a control on random labelled images was not asked for" in without.findings[0].sentence
    assert "gain_over_control" not in without.summary
    assert "control" not in without.table.column_names
    assert planted(4, 30, 20).table.column_names[-4:] == ["round_1", "round_2", "data_alone", "control"]
    for found in (without, planted(4, 30, 20)):
        assert set(found.summary) - {
            key for key in found.summary if key.rpartition("_")[2] in ("low", "high", "n")
        } <= set(found.definitions)


def test_no_gain_is_said_where_there_is_none(gone: Path) -> None:
    result = result_of(gone)
    still = replace(result, predictions=result.verdicts[:1].expand(4, -1))
    assert still.findings[0].sentence.startswith("No gain shown: ")
    before = result.verdicts[:1].expand(2, -1)
    mended = replace(result, predictions=torch.cat([result.labels.expand(2, -1), before]))
    assert result.verification is not None
    blind = replace(mended, verification=replace(result.verification, oracle_probs=result.verification.probs))
    assert blind.gain.low > 0
    assert blind.findings[0].sentence.startswith("No gain shown beyond the labels themselves")
    right = result.verification.probs.flip(1)
    worse = replace(
        result,
        labels=right.argmax(dim=1),
        predictions=(1 - right.argmax(dim=1)).expand(4, -1),
        verification=replace(result.verification, probs=right, oracle_probs=None),
    )
    assert worse.findings[0].sentence.startswith("No gain shown, but harm: ")


def test_people_are_asked_for_a_control_only_if_one_wants_it(world: Path, tmp_path: Path) -> None:
    settings = told(world, labeller=None, judge=None, rounds=1, labelled=6, fresh=4, images=64, control=True)
    run, waiting = run_loop(settings, out=tmp_path)
    asked = [(FRESH, 4), ("round-1", 6), (CONTROL, 6)]
    assert [(each.project, each.missing) for each in waiting] == asked
    with LabelStore(run) as store:
        for name, count in asked[:2]:
            say(store, store.project(name), "Ada", {i: i % 2 for i in range(count)})
    run, waiting = run_loop(settings, out=tmp_path)
    assert [(each.project, each.missing) for each in waiting] == [(CONTROL, 6)]
    with LabelStore(run) as store:
        # Of two no class fits: the control has fewer than the round, and the report says how many.
        say(store, store.project(CONTROL), "Ada", {i: i % 2 if i < 4 else NOT_ANY for i in range(6)})
    assert run_loop(settings, out=tmp_path) == (run, ())
    result = result_of(run)
    assert (result.controlled, int(result.labelled[-1])) == (4, 6)
    assert "after training on 4 random ones" in result.findings[0].sentence


def test_people_are_waited_for(world: Path, tmp_path: Path) -> None:
    settings = told(world, labeller=None, judge=None, labelled=10, fresh=8, labellers=2, images=320)
    run, waiting = run_loop(settings, out=tmp_path)
    assert [(each.project, each.missing) for each in waiting] == [(FRESH, 16), ("round-1", 20)]

    def label(name: str, who: str, n: int) -> None:
        with LabelStore(run) as store:
            project = store.project(name)
            images = store.images(project.id)
            answers = {i: int(i % 3 == 0) for i in range(n)} if name == FRESH else {i: i % 2 for i in range(n)}
            assert len(images) >= n
            say(store, project, who, answers | ({n - 1: NOT_ANY} if name == FRESH else {}))

    label(FRESH, "Ada", 8)
    label(FRESH, "Bo", 8)
    label("round-1", "Ada", 10)
    run, waiting = run_loop(settings, out=tmp_path)
    assert [(each.project, each.missing) for each in waiting] == [("round-1", 10)]
    label("round-1", "Bo", 10)
    run, waiting = run_loop(settings, out=tmp_path)
    assert [(each.project, each.missing) for each in waiting] == [("round-2", 20)]
    label("round-2", "Ada", 10)
    label("round-2", "Bo", 10)
    run, waiting = run_loop(settings, out=tmp_path)
    assert waiting == ()
    result = result_of(run)
    # One of the fresh images has no class.
    assert (len(result.ids), result.labeller, result.stand_in) == (7, "people", False)
    assert result.labels.tolist() == [int(i % 3 == 0) for i in range(7)]
    # Another label of an image is another training.
    with LabelStore(run) as store:
        for who in ("Ada", "Bo"):
            say(store, store.project("round-2"), who, {0: 1})
    assert run_loop(settings, out=tmp_path) == (run, ())
    assert len(list((run / "retrained").glob("round-2-*"))) == 2
    assert len(list((run / "retrained").glob("round-1-*"))) == 1


def test_a_killed_loop_goes_on(world: Path, tmp_path: Path) -> None:
    settings = told(world, images=6400, judge=None)
    (tmp_path / "config.json").write_text(json.dumps(settings.model_dump(mode="json", exclude_none=True)))
    code = (
        "import json, pathlib, sys, torch; torch.set_num_threads(1)\n"
        "from failscape.study.retraining_config import LoopConfig\n"
        "from failscape.study.retraining_loop import run_loop\n"
        "given = json.loads(pathlib.Path(sys.argv[1]).read_text())\n"
        "run_loop(LoopConfig.from_mapping(given), folder=pathlib.Path(sys.argv[2]))\n"
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "config.json"), str(killed)])
    deadline = time.monotonic() + 200
    while not any(has_checkpoint(folder) for folder in killed.glob("retrained/round-2-*/checkpoints")):
        assert child.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with LabelStore(killed) as store:
        before = {project.name: store.labels(project.id) for project in store.projects()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run_loop(settings, folder=killed) == (killed, ())
        assert run_loop(settings, folder=whole) == (whole, ())
    finally:
        torch.set_num_threads(threads)
    ours, reference = result_of(killed), result_of(whole)
    assert torch.equal(ours.images, reference.images)
    assert torch.equal(ours.predictions, reference.predictions)
    with LabelStore(killed) as store:
        assert {project.name: store.labels(project.id) for project in store.projects()} == before


def test_labels_that_a_kill_cut_off_are_given_once(world: Path, tmp_path: Path) -> None:
    settings = told(world, labeller=None, judge=None, rounds=1, fresh=8, labelled=10, images=64)
    run, _ = run_loop(settings, out=tmp_path)
    (run / "study.toml").unlink()
    # The same images, and a stand-in that finds them without labels.
    with_stand_in = told(world, judge=None, rounds=1, fresh=8, labelled=10, images=64)
    assert run_loop(with_stand_in, folder=run) == (run, ())
    with LabelStore(run) as store:
        assert [len(store.labels(project.id)) for project in store.projects()] == [8, 10, 10]


def test_a_generator_is_steered_by_the_classifier_of_each_round(world: Path, tmp_path: Path) -> None:
    settings = told(world, judge=None, steer="lying", steer_steps=3, images=64, fresh=8, labelled=8, one_in=2)
    run, waiting = run_loop(settings, out=tmp_path)
    assert waiting == ()
    assert sorted(path.name.rsplit("-", 1)[0] for path in (run / "generators").iterdir()) == ["round-1", "round-2"]
    assert "steered toward lying" in result_of(run).protocol


def test_known_labels_answer_in_place_of_people(world: Path, tmp_path: Path) -> None:
    x, y, _ = stripes(400, 5)
    np.savez(tmp_path / "known.npz", x=x.numpy(), y=y.numpy(), class_names=np.array(NAMES))
    known = str(tmp_path / "known.npz")
    run, _ = run_loop(told(world, labeller=None, judge=None, known=known, one_in=2, images=64), out=tmp_path)
    result = result_of(run)
    assert (result.labeller, result.stand_in) == (f"the known labels of {known}", True)
    # The control's may be those of a round, but none of them is measured on.
    with LabelStore(run) as store:
        pngs = {
            name: {store.png(image.id) for image in store.images(store.project(name).id)} for name in (FRESH, CONTROL)
        }
    assert len(pngs[CONTROL]) == result.controlled == 60
    assert not pngs[FRESH] & pngs[CONTROL]
    with pytest.raises(DataError, match="Ask for fewer"):
        run_loop(told(world, labeller=None, judge=None, known=known, labelled=140, images=64), out=tmp_path)


def test_a_loop_is_gone_on_with_by_its_folder_alone(world: Path, tmp_path: Path) -> None:
    settings = told(world, labeller=None, rounds=5)
    (tmp_path / "study.toml").write_text(settings.to_toml())
    _, found = settings_of_run(str(tmp_path), {}, out=tmp_path, lent=LoopConfig.model_fields)
    assert LoopConfig.from_mapping(found) == settings
    with pytest.raises(ConfigError, match="Leave one of the two out"):
        told(world, labeller=None, known="x", steer="lying")
