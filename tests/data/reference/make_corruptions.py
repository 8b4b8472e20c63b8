"""Write `corruptions.npz`: what another library makes of some images, for `test_corruptions.py` to compare with.

The library, `imagecorruptions`, is the published port of ImageNet-C's code. It needs OpenCV, numba and scikit-image,
which the tests are to do without, so it was asked once:

    pip install imagecorruptions-imaug==1.1.5 && python tests/data/reference/make_corruptions.py

Of the deterministic corruptions the file holds the results on one grey and one colour image; of the random ones the
mean and the standard deviation over a million values that were all of one brightness.
"""

from pathlib import Path

import imagecorruptions.corruptions as reference
import numpy as np
from numpy.typing import NDArray

from failscape.data import load_images

SEVERITIES = (1, 2, 3, 4, 5)
LEVELS = (0, 25, 128, 230, 255)
SIDE = 1000


def clean_images() -> dict[str, NDArray[np.uint8]]:
    """Return 8-bit images `(H, W, 3)`; a grey one has three equal channels, since the library wants three."""
    rng = np.random.default_rng(0)
    digit = np.rint(load_images("embedded:mnist-test").x[0, 0].numpy() * 255).astype(np.uint8)
    y, x = np.mgrid[:20, :31]
    waves = np.stack([np.sin(x / 3), np.cos(y / 5 + x / 7), (x - y) / 20], axis=2)
    waves[6:14, 18:28] = (1.3, -1.3, 0.5)  # an area with hard edges, partly at the ends of the scale
    colour = 127.5 + 110 * waves + 12 * rng.standard_normal(waves.shape)
    return {"grey": np.stack([digit] * 3, axis=2), "colour": np.clip(np.rint(colour), 0, 255).astype(np.uint8)}


def exact(name: str, image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the result at each severity, in steps of 1/65535; the library has not yet cut it down to 8 bits."""
    if name == "jpeg_compression":
        from PIL import Image

        results = [np.array(reference.jpeg_compression(Image.fromarray(image), s)) for s in SEVERITIES]
    else:
        results = [getattr(reference, name)(image, s) for s in SEVERITIES]
    return np.rint(np.stack(results) * 257.0).astype(np.uint16)


def moments(name: str) -> NDArray[np.float64]:
    """Return mean and standard deviation `(severities, levels, 2)` of results in [0, 1]."""
    # The library draws from NumPy's global state, except for this one.
    seed = {"seed": 0} if name == "impulse_noise" else {}
    found = [
        getattr(reference, name)(np.full((SIDE, SIDE), level, np.uint8), severity, **seed) / 255
        for severity in SEVERITIES
        for level in LEVELS
    ]
    return np.array([(values.mean(), values.std()) for values in found]).reshape(len(SEVERITIES), len(LEVELS), 2)


def main() -> None:
    np.random.seed(0)  # noqa: NPY002 - see `moments`
    arrays: dict[str, NDArray[np.generic]] = {"levels": np.array(LEVELS), "samples": np.array(SIDE**2)}
    for kind, image in clean_images().items():
        stored = image[:, :, :1] if kind == "grey" else image
        arrays[f"clean.{kind}"] = stored
        for name in ("gaussian_blur", "contrast", "jpeg_compression"):
            arrays[f"{name}.{kind}"] = exact(name, image)[..., : stored.shape[2]]
    for name in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"):
        arrays[name] = moments(name)
    np.savez_compressed(Path(__file__).with_name("corruptions.npz"), **arrays)


if __name__ == "__main__":
    main()
