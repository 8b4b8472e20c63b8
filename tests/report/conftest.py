from collections.abc import Callable
from pathlib import Path

import pytest
from toy import Toy

from failscape.explain import METHODS, Result
from failscape.figures import save_plot
from failscape.storage import write_bytes, write_json


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return what writes a run folder with one step of each given result, and registers the toy method."""
    monkeypatch.setitem(METHODS, "toy", Toy)

    def make(*results: Result, name: str = "00007-toy", saved_plots: bool = True) -> Path:
        run = tmp_path / name
        write_bytes(run / "study.toml", b'name = "toy"\n')
        write_json(run / "environment.json", {"python": "3.11.7"})
        selection = {"images": "toy-set", "only": "mistakes", "total": 50, "classified": 50}
        write_json(run / "selection.json", selection | {"correct": 44, "mistakes": 6, "selected": 6})
        for i, result in enumerate(results, start=1):
            folder = run / f"steps/{i:02d}-step-{i}"
            result.save(folder)
            record = {"name": f"step-{i}", "method": "toy", "title": None, "settings": {"mode": "<i>"}}
            models = {"classifier": "embedded:toy-net", "generator": "toy-vae", "oracle": None}
            write_json(folder / "step.json", record | models | {"status": "done", "error": None})
            if saved_plots:
                save_plot(result.figures[0], folder / "figures")
        return run

    return make
