import json
import tomllib
from pathlib import Path

import torch

from failscape.explain import METHODS
from failscape.generators import ConditionSpace, StyleGAN2, load_generator, save_generator
from failscape.study import StudyConfig, demo_study, read_steps, run_study
from failscape.study.inputs import StepInputs, load_models
from failscape.study.methods import prepare_method


def inputs() -> list[StepInputs]:
    config = demo_study()
    return [StepInputs.of(step, config) for step in config.steps]


def test_the_demo_needs_nothing_but_the_package() -> None:
    for each in inputs():
        for spec in (each.classifier, each.oracle, each.generator, each.images.spec):
            assert spec is not None
            assert spec.startswith("embedded:")


def test_every_network_of_the_demo_is_there_and_fits() -> None:
    load_models(inputs(), allow_code=False)


def test_every_step_of_the_demo_can_be_built() -> None:
    methods = [type(prepare_method(step).method) for step in demo_study().steps]
    assert methods == [METHODS[step.method] for step in demo_study().steps]


def test_the_demo_survives_being_written_down() -> None:
    assert StudyConfig.from_mapping(tomllib.loads(demo_study().to_toml())) == demo_study()


def test_the_step_about_another_classifier_runs_whatever_the_generator(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"channels": (4, 4, 4), "latent_dim": 4, "style_dim": 8}
        stand_in = StyleGAN2(image_shape=(1, 28, 28), condition=ConditionSpace(num_classes=10).config, **sizes)
    save_generator(stand_in, tmp_path / "stand-in")
    assert load_generator(tmp_path / "stand-in").condition_space is not None
    document = json.loads(demo_study().model_dump_json(exclude_none=True))
    step = next(step for step in document["steps"] if step["method"] == "uncertain-samples")
    document["steps"] = [step | {"generator": str(tmp_path / "stand-in")}]
    run = run_study(StudyConfig.from_mapping(document), out=tmp_path)
    (record,) = read_steps(run)
    assert (record["status"], record["error"]) == ("done", None)
    assert record["classifier"] == "embedded:mnist-corrupted"
    # The summary speaks of real images too: there are enough of each class and confidence.
    summary = json.loads((run / "steps" / record["folder"] / "summary.json").read_text())
    assert summary["real_oracle_class_n"] > 50
    assert summary["real_monotone_n"] == 10
