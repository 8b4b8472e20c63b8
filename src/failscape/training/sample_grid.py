"""The grid of samples that a generator's training leaves at each evaluation."""

from pathlib import Path

import torch

from failscape.figures import png_bytes
from failscape.generators import Condition
from failscape.generators.condition import VECTOR
from failscape.storage import write_bytes
from failscape.training.gan_evaluation import draw_images
from failscape.training.generator_task import GeneratorTask
from failscape.training.task import Task

_ROWS = 8
_COLUMNS = 10


@torch.no_grad()
def write_sample_grid(task: Task, images: int, folder: Path) -> dict[str, float]:
    """Write `samples/IMAGES.png`, of the same latents each time.

    Of a generator with a condition there is a column a class, requests falling from sure to unsure from top to
    bottom, or, where whole distributions are asked for, those of images learnt from; of another eight rows of ten.
    """
    assert isinstance(task, GeneratorTask)
    generator = task.judged
    rng = torch.Generator().manual_seed(0)
    space = generator.condition_space
    columns = _COLUMNS if space is None else space.num_classes
    condition = None
    if space is not None and space.score != VECTOR:
        low, high = torch.tensor(space.supported).T
        part = torch.linspace(1, 0, _ROWS)[:, None]
        if space.score == "entropy":
            part = 1 - part
        condition = Condition(
            y=torch.arange(columns).repeat(_ROWS), score=(low + part * (high - low)).clamp(1e-6, 1).flatten()
        )
    elif space is not None:
        condition = task.learnt_conditions(columns * _ROWS, rng=rng)
    x = draw_images(generator, columns * _ROWS, condition, rng=rng)
    tiled = x.unflatten(0, (_ROWS, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    if tiled.shape[0] in (1, 3):
        write_bytes(folder / "samples" / f"{images:09d}.png", png_bytes(tiled))
    return {}
