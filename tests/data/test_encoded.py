import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from failscape.data.encoded import ImageDecoder
from failscape.errors import ImageError

Encode = Callable[..., bytes]
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def decode(content: bytes, **options: tuple[int, int, int]) -> NDArray[np.float32]:
    decoder = ImageDecoder(content, "image", **options)
    values: NDArray[np.float32] = decoder.decode(content, "image").numpy()
    assert values.shape == decoder.image_shape
    assert values.dtype == np.float32
    return values


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_colour_is_exact(encode: Encode, format: str) -> None:
    content = encode(COLOUR, format, **({"lossless": True} if format == "WEBP" else {}))
    assert np.array_equal(decode(content), np.float32(COLOUR.transpose(2, 0, 1)) / np.float32(255))


def test_grey_is_exact(encode: Encode) -> None:
    assert np.array_equal(decode(encode(GREY))[0], np.float32(GREY) / np.float32(255))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near(encode: Encode, channels: int) -> None:
    ramp = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    content = encode(ramp if channels == 1 else np.stack([ramp] * 3, axis=2), "JPEG", quality=95)
    values = decode(content)
    assert values.shape == (channels, 32, 32)
    assert np.abs(values - ramp / 255).max() < 4 / 255


def test_sixteen_bits_keep_their_precision(encode: Encode) -> None:
    deep = np.array([[0, 1, 257], [32768, 65534, 65535]], dtype=np.uint16)
    assert np.array_equal(decode(encode(deep))[0], np.float32(deep) / np.float32(65535))


def test_one_bit(tmp_path: Path) -> None:
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(decode((tmp_path / "bits.png").read_bytes())[0], bits)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "palette.png")
    expected = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])[indices].transpose(2, 0, 1)
    assert np.array_equal((decode((tmp_path / "palette.png").read_bytes()) * 255).round(), expected)


def test_transparent_lies_on_white(encode: Encode) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], dtype=np.uint8)
    assert (decode(encode(rgba)) * 255).round().transpose(1, 2, 0).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    grey_alpha = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    assert (decode(encode(grey_alpha)) * 255).round().tolist() == [[[10, 255]]]


def test_grey_among_colour_loses_nothing(encode: Encode) -> None:
    decoder = ImageDecoder(encode(COLOUR), "first")
    values = decoder.decode(encode(GREY), "second").numpy()
    assert np.array_equal(values, np.stack([np.float32(GREY) / np.float32(255)] * 3))


def test_colourless_among_grey_loses_nothing(encode: Encode) -> None:
    decoder = ImageDecoder(encode(GREY), "first")
    values = decoder.decode(encode(np.stack([GREY] * 3, axis=2)), "second").numpy()
    assert np.array_equal(values[0], np.float32(GREY) / np.float32(255))


def test_colour_among_grey_is_refused(encode: Encode) -> None:
    decoder = ImageDecoder(encode(GREY), "first.png")
    with pytest.raises(ImageError, match=r"only grey images, as first.png is, but second.png has colours"):
        decoder.decode(encode(COLOUR), "second.png")


def test_another_size_is_refused(encode: Encode) -> None:
    decoder = ImageDecoder(encode(GREY), "first.png")
    with pytest.raises(ImageError, match=r"first.png is 5 x 6 and second.png is 6 x 5 pixels.*image_shape"):
        decoder.decode(encode(GREY.T.copy()), "second.png")


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 3, 4), (1, 12, 10), (3, 6, 5)])
@pytest.mark.parametrize("values", [GREY, COLOUR, GREY.astype(np.uint16) * 257])
def test_asked_for_shape(encode: Encode, shape: tuple[int, int, int], values: NDArray[np.uint8]) -> None:
    decoded = decode(encode(values), image_shape=shape)
    assert decoded.shape == shape
    assert decoded.mean() == pytest.approx(values.mean() / np.iinfo(values.dtype).max, abs=0.06)


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 0, 4), (1, 4, -1)])
def test_shape_that_is_none(encode: Encode, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ImageError, match="C of 1 or 3"):
        ImageDecoder(encode(GREY), "first", image_shape=shape)


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True})])
def test_truncated_at_any_length(encode: Encode, format: str, options: dict[str, bool]) -> None:
    whole = encode(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), format, **options)
    decoder = ImageDecoder(whole, "whole")
    for length in range(0, len(whole) // 2, max(1, len(whole) // 40)):
        with pytest.raises(ImageError, match=r"readable image cut\.png.*corrupt or truncated"):
            decoder.decode(whole[:length], "cut.png")


def test_damaged_png(encode: Encode) -> None:
    content = bytearray(encode(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)))
    content[200:400] = bytes(200)
    decoder = ImageDecoder(encode(np.zeros((40, 40, 3), np.uint8)), "first")
    with pytest.raises(ImageError, match="corrupt or truncated"):
        decoder.decode(bytes(content), "damaged")


def test_another_format(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "image.bmp")
    with pytest.raises(ImageError, match="no PNG, JPEG or WebP"):
        ImageDecoder((tmp_path / "image.bmp").read_bytes(), "image.png")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        ImageDecoder(tmp_path / "none.png", "none.png")


def png_of_nothing(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_enormous_is_refused_before_decoding(encode: Encode, width: int, height: int) -> None:
    bomb = png_of_nothing(width, height)
    with pytest.raises(
        ImageError, match=r"at most 64 megapixels.*claims [\dx ]+ pixels\. It may be a decompression bomb"
    ):
        ImageDecoder(bomb, "bomb.png")
    decoder = ImageDecoder(encode(GREY), "first", image_shape=(1, 6, 5))
    with pytest.raises(ImageError, match=r"at most 64 megapixels.*decompression bomb"):
        decoder.decode(bomb, "bomb.png")


def test_result_is_independent_of_the_file(encode: Encode) -> None:
    decoder = ImageDecoder(encode(GREY), "first")
    values = decoder.decode(encode(GREY), "first")
    values.mul_(0)
    assert torch.equal(decoder.decode(encode(GREY), "first")[0], torch.from_numpy(GREY).float() / 255)
