from pathlib import Path

import numpy as np
import pytest
import torch

from failscape.classifiers import build_network, save_classifier
from failscape.generators import VAE, save_generator


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a tiny classifier and VAE, 12 labelled images, and a study of them."""
    monkeypatch.chdir(tmp_path)
    shape = (1, 8, 8)
    network = build_network("plain-cnn", seed=0, image_shape=shape, num_classes=3, width=4)
    save_classifier(
        Path("classifier"),
        architecture="plain-cnn",
        sizes={"width": 4},
        state=network.state_dict(),
        class_names=("ant", "bee", "cat"),
        image_shape=shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_generator(VAE(image_shape=shape, latent_dim=3, hidden=(16,)), Path("generator"))
    rng = np.random.default_rng(0)
    np.savez("images.npz", x=rng.random((12, 8, 8), dtype=np.float32), y=np.arange(12) % 3)
    Path("study.toml").write_text(
        'name = "toy"\n'
        'images = { spec = "images.npz", limit = 3 }\n'
        'classifier = { spec = "classifier" }\n'
        'generator = { spec = "generator" }\n'
        '[[steps]]\nmethod = "sympathetic-examples"\nsettings = { steps = 2, rounds = 0, candidates = 2 }\n'
    )
    return tmp_path
