import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import failscape
from failscape.classifiers import build_network, save_classifier
from failscape.errors import ClassifierError, ConfigError, FailscapeError, SpecError
from failscape.explain import CorruptionTableResult, Result, load_result
from failscape.study import StudyConfig, run_study
from failscape.study.run_folder import read_steps


def draws(run: Path, probe: Any) -> list[float]:
    """Return the random number that each step drew."""
    return [float(probe.result_type.load(folder).draw) for folder in sorted((run / "steps").iterdir())]


def statuses(run: Path) -> list[str]:
    return [step["status"] for step in read_steps(run)]


def test_a_study_runs_its_steps_on_the_mistakes(tmp_path: Path, config: StudyConfig, probe: Any) -> None:
    run = run_study(config, out=tmp_path / "runs")
    assert run == tmp_path / "runs" / "00001-toy"
    assert statuses(run) == ["done", "done"]

    images = failscape.load_images(tmp_path / "images.npz")
    classifier = failscape.load_classifier(tmp_path / "classifier.safetensors")
    oracle = failscape.load_classifier(tmp_path / "oracle.safetensors")
    wrong = classifier.predict(images.x) != images.y
    selection = json.loads((run / "selection.json").read_text())
    assert (selection["selected"], selection["mistakes"]) == (int(wrong.sum()), int(wrong.sum()))
    assert (selection["total"], selection["classified"], selection["correct"]) == (
        30,
        30,
        30 - int(wrong.sum()),
    )

    result: Result = probe.result_type.load(run / "steps" / "01-first")
    assert result.verification is not None
    assert len(result.images) == int(wrong.sum())
    assert result.verification.probs.equal(classifier.probs(result.images))
    assert result.verification.oracle_probs is not None
    assert result.verification.oracle_probs.equal(oracle.probs(result.images))
    record = read_steps(run)[0]
    assert (record["title"], record["error"], record["images"]) == ("First", None, config.images.spec)
    assert not list(run.rglob("*.p*kl*"))


def test_what_has_not_changed_is_not_run_again(tmp_path: Path, config: StudyConfig, probe: Any) -> None:
    run = run_study(config, out=tmp_path)
    before = {file: file.read_bytes() for file in (run / "steps").rglob("*") if file.is_file()}
    assert run_study(config, out=tmp_path) == run
    assert probe.runs == 2
    assert {file: file.read_bytes() for file in (run / "steps").rglob("*") if file.is_file()} == before


def test_a_step_is_run_with_what_it_names_itself(tmp_path: Path, world: dict[str, Any], probe: Any) -> None:
    classifier, oracle = world["classifier"]["spec"], world["oracle"]["spec"]
    world["steps"] = [
        {"method": "probe", "name": "shared"},
        {"method": "probe", "name": "swapped", "classifier": oracle, "oracle": classifier},
        {"method": "probe", "name": "alone", "classifier": oracle},
    ]
    run = run_study(StudyConfig.from_mapping(world), out=tmp_path / "runs")
    first, second, third = read_steps(run)
    assert (first["classifier"], first["oracle"]) == (classifier, oracle)
    assert (second["classifier"], second["oracle"]) == (oracle, classifier)
    assert (third["classifier"], third["oracle"]) == (oracle, None)

    images = failscape.load_images(tmp_path / "images.npz")
    networks = {spec: failscape.load_classifier(spec) for spec in (classifier, oracle)}
    wrong = {spec: network.predict(images.x) != images.y for spec, network in networks.items()}
    assert not torch.equal(wrong[classifier], wrong[oracle])
    for record, spec, judge in ((first, classifier, oracle), (second, oracle, classifier), (third, oracle, None)):
        result: Result = probe.result_type.load(run / "steps" / record["folder"])
        # Each step explains the mistakes of its own classifier.
        assert torch.allclose(result.images, images.x[wrong[spec]], atol=1 / 255)
        assert result.verification is not None
        assert result.verification.probs.equal(networks[spec].probs(result.images))
        said = result.verification.oracle_probs
        assert (said is None) == (judge is None)
        assert said is None or (judge is not None and said.equal(networks[judge].probs(result.images)))
    selection = json.loads((run / "selection.json").read_text())
    assert (selection["classifier"], selection["selected"]) == (classifier, int(wrong[classifier].sum()))


@pytest.mark.parametrize("changed", ["images", "classifier", "oracle", "generator", "version"])
def test_what_has_changed_is_run_again(
    tmp_path: Path, config: StudyConfig, world: dict[str, Any], probe: Any, changed: str, monkeypatch: Any
) -> None:
    three = {"method": "probe", "name": "third", "generator": str(tmp_path / "vae3.safetensors")}
    fourth = {"method": "probe", "name": "fourth", "classifier": world["oracle"]["spec"]}
    config = StudyConfig.from_mapping(world | {"steps": [*world["steps"], three, fourth]})
    run = run_study(config, out=tmp_path)
    assert probe.runs == 4
    if changed == "images":
        with np.load(tmp_path / "images.npz") as old:
            np.savez(tmp_path / "images.npz", x=old["x"] * 0.5, y=old["y"])
    elif changed in ("classifier", "oracle"):
        network = failscape.load_classifier(tmp_path / f"{changed}.safetensors").network
        state = {name: tensor * 1.25 for name, tensor in network.state_dict().items()}
        failscape.classifiers.save_classifier(
            tmp_path / f"{changed}.safetensors",
            architecture="plain-cnn",
            sizes={"width": 4},
            state=state,
            class_names=("ant", "bee", "cat"),
            image_shape=(1, 8, 8),
        )
    elif changed == "generator":
        vae = failscape.load_generator(tmp_path / "vae3.safetensors")
        vae.load_state_dict({name: 2 * tensor for name, tensor in vae.state_dict().items()})
        failscape.generators.save_generator(vae, tmp_path / "vae3.safetensors")
    else:
        monkeypatch.setattr(failscape, "__version__", "99")
    assert run_study(config, out=tmp_path) == run
    # Only the third step uses the generator that was changed, and all but the fourth the classifier.
    assert probe.runs - 4 == {"generator": 1, "classifier": 3}.get(changed, 4)
    assert statuses(run) == ["done"] * 4


def test_a_step_is_run_again_when_a_classifier_in_its_settings_has_changed(
    tmp_path: Path, world: dict[str, Any], probe: Any
) -> None:
    network = build_network("plain-cnn", seed=2, image_shape=(1, 8, 8), num_classes=3, width=4)
    other = tmp_path / "other.safetensors"

    def save(scale: float, names: tuple[str, ...] = ("ant", "bee", "cat")) -> None:
        save_classifier(
            other,
            architecture="plain-cnn",
            sizes={"width": 4},
            state={name: scale * tensor for name, tensor in network.state_dict().items()},
            class_names=names,
            image_shape=(1, 8, 8),
        )

    save(1.0)
    table = {"method": "corruption-table", "settings": {"others": [str(other)], "corruptions": ["contrast"]}}
    config = StudyConfig.from_mapping(world | {"steps": [table, *world["steps"]]})
    run = run_study(config, out=tmp_path)
    result = load_result(run / "steps" / "01-corruption-table")
    assert isinstance(result, CorruptionTableResult)
    assert result.classifiers == ("classifier", "other")
    seconds = [step["seconds"] for step in read_steps(run)]
    assert run_study(config, out=tmp_path) == run
    assert [step["seconds"] for step in read_steps(run)] == seconds, "kept"
    fingerprints = [step["fingerprint"] for step in read_steps(run)]
    save(1.5)
    assert run_study(config, out=tmp_path) == run
    changed = [step["fingerprint"] != old for step, old in zip(read_steps(run), fingerprints, strict=True)]
    assert changed == [True, False, False]
    save(1.0, names=("ant", "bee", "dog"))
    with pytest.raises(ClassifierError, match=r"other takes .* 'dog'"):
        run_study(config, out=tmp_path)


def test_the_same_seed_gives_the_same_draws_whatever_was_skipped(
    tmp_path: Path, config: StudyConfig, world: dict[str, Any], probe: Any
) -> None:
    whole = draws(run_study(config, out=tmp_path / "a"), probe)
    assert len(set(whole)) == 2
    run = run_study(config, folder=tmp_path / "b")
    (run / "steps" / "02-second" / "step.json").unlink()
    assert draws(run_study(config, folder=tmp_path / "b"), probe) == whole
    assert probe.runs == 5
    another = run_study(StudyConfig.from_mapping(world | {"seed": 1}), out=tmp_path / "a")
    assert not set(whole) & set(draws(another, probe))


def test_a_failed_step_is_recorded_and_the_next_one_runs(tmp_path: Path, world: dict[str, Any], probe: Any) -> None:
    world["steps"].insert(1, {"method": "probe", "name": "bad", "settings": {"fails": True}})
    config = StudyConfig.from_mapping(world)
    run = run_study(config, out=tmp_path)
    assert statuses(run) == ["done", "failed", "done"]
    assert read_steps(run)[1]["error"] == "Expected luck, but got none. Try again."
    run_study(config, out=tmp_path)
    assert probe.runs == 4  # the failed one was tried again


def test_with_nothing_to_explain_the_steps_say_so(tmp_path: Path, world: dict[str, Any], probe: Any) -> None:
    classifier = failscape.load_classifier(tmp_path / "classifier.safetensors")
    x = failscape.load_images(tmp_path / "images.npz").x
    never_right = (classifier.predict(x) + 1 + torch.arange(len(x)) % 2) % 3
    np.savez(tmp_path / "images.npz", x=x.numpy(), y=never_right.numpy(), class_names=["ant", "bee", "cat"])
    world["images"]["only"] = "correct"
    run = run_study(StudyConfig.from_mapping(world), out=tmp_path / "runs")
    assert statuses(run) == ["skipped", "skipped"]
    assert read_steps(run)[0]["error"].startswith("Nothing to explain: 0 images chosen (correct)")
    assert probe.runs == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"steps": [{"method": "prob"}]}, ConfigError),
        ({"steps": [{"method": "probe", "settings": {"paus": 1}}]}, ConfigError),
        ({"steps": [{"method": "probe", "settings": {"pause": -1}}]}, ConfigError),
        ({"images": {"spec": "nowhere"}}, SpecError),
        ({"classifier": {"spec": "nowhere"}}, SpecError),
        ({"generator": {"spec": "nowhere"}}, SpecError),
        ({"classifier": {"spec": "python:mine.py:make"}}, SpecError),
    ],
)
def test_a_study_that_cannot_start_leaves_no_folder(
    tmp_path: Path, world: dict[str, Any], change: dict[str, Any], error: type[FailscapeError]
) -> None:
    with pytest.raises(error):
        run_study(StudyConfig.from_mapping(world | change), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_progress_is_told(tmp_path: Path, config: StudyConfig) -> None:
    said: list[str] = []
    run_study(config, out=tmp_path, progress=said.append)
    assert "step 1 of 2, first" in said
    run_study(config, out=tmp_path, progress=said.append)
    assert said[-1] == "step 2 of 2, second: done before, inputs unchanged"


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conftest import Probe
from failscape.explain import METHODS
from failscape.study import StudyConfig, run_study
METHODS["probe"] = Probe
run_study(StudyConfig.from_toml(Path(sys.argv[2])), out=Path(sys.argv[3]))
"""


@pytest.mark.parametrize("finished", [0, 2])
def test_a_killed_study_goes_on_where_it_was(tmp_path: Path, world: dict[str, Any], probe: Any, finished: int) -> None:
    steps = [{"method": "probe", "name": f"n{i}", "settings": {"pause": 0.3}} for i in range(4)]
    config = StudyConfig.from_mapping(world | {"steps": steps})
    (tmp_path / "study.toml").write_text(config.to_toml())
    out = tmp_path / "runs"
    arguments = [
        sys.executable,
        "-c",
        KILLED,
        str(Path(__file__).parent),
        str(tmp_path / "study.toml"),
        str(out),
    ]
    process = subprocess.Popen(arguments)
    partial = out / "00001-toy" / "steps" / f".{finished + 1:02d}-n{finished}.partial"
    deadline = time.monotonic() + 60
    while not partial.exists():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    run = out / "00001-toy"
    assert statuses(run) == ["done"] * finished
    before = [folder.joinpath("step.json").read_bytes() for folder in sorted(run.glob("steps/0*"))]
    assert run_study(config, out=out) == run
    assert probe.runs == 4 - finished
    assert statuses(run) == ["done"] * 4
    after = [folder.joinpath("step.json").read_bytes() for folder in sorted(run.glob("steps/0*"))]
    assert after[:finished] == before
    assert draws(run, probe) == draws(run_study(config, folder=tmp_path / "whole"), probe)
    events = [json.loads(line)["event"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert events.count("start") == 2
    assert events[-1] == "end"
