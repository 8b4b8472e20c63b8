from pathlib import Path
from typing import Any

import pytest

from failscape.cli import main
from failscape.explain import METHODS
from failscape.study import StudyConfig
from failscape.study.methods import prepare_method
from failscape.study.run_folder import read_steps

MODELS = ["--classifier", "embedded:mnist-corrupted", "--generator", "embedded:mnist-stylegan2"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("style-influence", {"samples": 40, "top": 1, "score": "probability"}),
        ("style-difference", {"samples": 40, "others": ["embedded:mnist-clean"]}),
        ("degradation", {"samples": 40, "dimensions": 1, "classes": ["8"], "progress": [0.0, 1.0]}),
        ("latent-map", {"samples": 20, "draws": 20, "mapped": 8, "perplexity": 2.5}),
        ("latent-accuracy", {"samples": 300, "influence_samples": 40, "smallest_bin": 2}),
        ("real-directions", {"samples": 40, "top": 1, "steps": 0}),
    ],
)
def test_a_method_is_given_what_was_typed(name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    studies: list[StudyConfig] = []
    monkeypatch.setattr("failscape.cli.method.run", lambda config, **where: studies.append(config) or 0)
    typed = [f"--set={key}={str(value).replace(chr(39), chr(34))}" for key, value in settings.items()]
    assert main(["method", name, "embedded:mnist-test", *MODELS, *typed, "--limit", "6"]) == 0
    (study,) = studies
    assert (study.images.spec, study.images.only, study.images.limit) == ("embedded:mnist-test", "all", 6)
    (step,) = study.steps
    assert step.settings == settings
    method = prepare_method(step).method
    assert type(method) is METHODS[name]
    for key, value in settings.items():
        if key != "others":
            assert getattr(method, key) == (tuple(value) if isinstance(value, list) else value)


def test_a_method_runs_and_is_reported(tmp_path: Path) -> None:
    typed = ["--set", "samples=20", "--set", "draws=20", "--set", "mapped=8", "--limit", "3", "--out", str(tmp_path)]
    assert main(["method", "latent-map", "embedded:mnist-test", *MODELS, *typed]) == 0
    run = tmp_path / "00001-latent-map"
    assert [step["status"] for step in read_steps(run)] == ["done"]
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["latent-map", "--set", "samples"], "Expected --set KEY=VALUE, such as samples=2000, but got 'samples'"),
        (["latent-map", "--set", "sample=3"], "Did you mean 'samples'"),
        (["latent-map", "--set", "samples=many"], "Expected `samples` to"),
        (["latentmap"], "Did you mean 'latent-map'?"),
        (["degradation", "--set", "progress=[]"], "Expected rising `progress` from 0 with 1 among it, but got nothing"),
    ],
)
def test_mistakes_are_told_in_words(
    typed: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *flags = typed
    assert main(["method", name, "embedded:mnist-test", *MODELS, *flags, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
