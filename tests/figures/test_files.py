import io

import numpy as np
import torch
from PIL import Image

from failscape.figures import Plot, curves_with_bands, png_bytes, save_plot
from failscape.figures.files import symmetrical_scale


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_eight_bit_grey_survives_exactly():
    levels = torch.arange(256).reshape(1, 16, 16)
    assert (opened(png_bytes(levels / 255)) == levels[0].numpy()).all()


def test_eight_bit_colour_survives_exactly():
    levels = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0))
    assert (opened(png_bytes(levels / 255)) == levels.permute(1, 2, 0).numpy()).all()


def test_signed_zero_is_middle_grey_in_one_channel_and_in_three():
    for channels in (1, 3):
        pixels = torch.zeros(channels, 2, 2)
        pixels[:, 0, 0], pixels[:, 0, 1] = 0.2, -0.2
        shown = opened(png_bytes(pixels, signed=True)).astype(int)
        assert shown[1].tolist() == [[128] * 3] * 2
        assert (shown[0, 0] + shown[0, 1] == 256).all()
        assert shown[0, 0].sum() > 3 * 128 > shown[0, 1].sum()


def test_scale_is_symmetrical_and_never_blows_up_rounding_noise():
    assert symmetrical_scale(torch.tensor([0.1, -0.4]), torch.tensor([0.3])) == torch.tensor(0.4).item()
    assert symmetrical_scale(torch.tensor([1e-6])) == 1 / 255


def test_saved_plots_are_the_same_bytes_each_time_and_hold_no_date(tmp_path):
    def draw():
        x = torch.linspace(0, 1, 5)
        return curves_with_bands(x, {"a": x, "b": 1 - x}, x_label="x", y_label="y")

    plot = Plot(name="curves", title="", caption="", draw=draw)
    first = [path.read_bytes() for path in save_plot(plot, tmp_path / "a")]
    second = [path.read_bytes() for path in save_plot(plot, tmp_path / "b")]
    assert first == second
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["curves.png", "curves.svg"]
    assert b"<dc:date>" not in first[1]
