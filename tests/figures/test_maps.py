import torch

from failscape.figures import latent_maps


def test_every_sample_is_drawn_once_above_and_once_below_and_wrong_ones_as_crosses() -> None:
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    labels, wrong = torch.arange(40) % 12, torch.arange(40) < 5
    names = [f"class {k}" for k in range(12)]
    drawing = latent_maps({"Z": points, "S": -points}, labels, wrong, class_names=names, notes=[("a", "b"), ("c", "d")])
    assert [ax.get_title(loc="left") for ax in drawing.axes] == ["Z   a", "S   c", "Z   b", "S   d"]
    for ax in drawing.axes:
        counts = {"o": 0, "x": 0}
        for line in ax.lines:
            counts[str(line.get_marker())] += len(line.get_xdata())
        assert counts == {"o": 35, "x": 5}
    below = drawing.axes[2].lines
    assert below[0].get_color() != below[1].get_color()
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == names
    assert [text.get_text() for text in drawing.legends[1].get_texts()] == ["rightly classified", "misclassified"]
