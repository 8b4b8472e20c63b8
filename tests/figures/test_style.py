import subprocess
import sys

import matplotlib as mpl
import torch

from failscape.figures import house_style, image_grid


def test_house_style_leaves_the_callers_settings_alone():
    before = dict(mpl.rcParams)
    with house_style():
        assert mpl.rcParams["axes.spines.top"] is False
        image_grid(torch.zeros(1, 1, 1, 2, 2))
    assert dict(mpl.rcParams) == before


def test_drawing_needs_no_pyplot():
    code = (
        "import sys, torch, failscape.figures as f\n"
        "f.image_grid(torch.zeros(1, 1, 1, 2, 2))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
