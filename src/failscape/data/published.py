"""MNIST and Fashion-MNIST: from a folder, the cache, this package or a mirror, always the same bytes."""

import os
import time
import urllib.request
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from failscape.data.idx import read_idx, read_idx_pair
from failscape.data.images import ImageSet
from failscape.errors import DataError
from failscape.storage import atomic_path

Split = Literal["train", "test"]
_PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}
_MAX_DOWNLOAD_BYTES = 64 * 2**20
_SOCKET_SECONDS = 20.0
_FILE_SECONDS = 600.0


@dataclass(frozen=True)
class PublishedSet:
    """A data set of four IDX files that anyone may mirror.

    Attributes:
        class_names: in the order of the labels.
        mirrors: folders on the web that hold the gzipped files.
        sums: the SHA-256 of the decompressed images and labels of each split; how a mirror compresses is
            free.
    """

    class_names: tuple[str, ...]
    mirrors: tuple[str, ...]
    sums: dict[Split, tuple[str, str]]


PUBLISHED = {
    "mnist": PublishedSet(
        class_names=tuple("0123456789"),
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        sums={
            "train": (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            "test": (
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        },
    ),
    "fashion-mnist": PublishedSet(
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        mirrors=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        sums={
            "train": (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            "test": (
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        },
    ),
}

EMBEDDED_DIGITS: dict[str, tuple[Split, tuple[str, str]]] = {
    "mnist-test": ("test", PUBLISHED["mnist"].sums["test"]),
    "mnist-train-10k": (
        "train",
        (
            "2889698e6bc3614913e76901316712919d1998fc2b44512451bfe65bc1e668b1",
            "651e38e2ac0632f5113ec18f1df4977117f953197819034009971a6675a0df78",
        ),
    ),
}


def read_published(name: str, split: Split) -> ImageSet:
    """Return a split of MNIST or Fashion-MNIST.

    Each file is looked for, raw or gzipped, in `$FAILSCAPE_DATA/NAME/` and in the cache folder, then
    downloaded into the cache. The MNIST test files are in this package, so they are never downloaded.

    Args:
        name: a key of `PUBLISHED`.
        split: "train" or "test".

    Raises:
        DataError: if a file is nowhere to be had, or is not the published one.
        StorageError: if the cache cannot be written.
    """
    published = PUBLISHED[name]
    paths = []
    for stem, sha256 in zip(_stems(split), published.sums[split], strict=True):
        found = _find(name, stem)
        if found is None and (name, split) == ("mnist", "test"):
            return read_embedded_digits("mnist-test")
        paths.append(found or _download(name, stem, published.mirrors, sha256))
    return _read(name, split, paths[0], paths[1])


def read_embedded_digits(name: str) -> ImageSet:
    """Return digits that are in this package.

    Args:
        name: a key of `EMBEDDED_DIGITS`: "mnist-test" is the test set, "mnist-train-10k" the first 10,000 digits of the
            training set.
    """
    split, sums = EMBEDDED_DIGITS[name]
    images, labels = _stems(split)
    with as_file(files("failscape") / "assets" / name) as folder:
        return read_idx_pair(
            folder / f"{images}.gz",
            folder / f"{labels}.gz",
            name=name,
            class_names=PUBLISHED["mnist"].class_names,
            sums=sums,
        )


def cache_folder() -> Path:
    """Return `$FAILSCAPE_CACHE`, or `failscape` in `$XDG_CACHE_HOME`, which is `~/.cache` by default."""
    if chosen := os.environ.get("FAILSCAPE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "failscape"


def _read(name: str, split: Split, images: Path, labels: Path) -> ImageSet:
    published = PUBLISHED[name]
    return read_idx_pair(
        images,
        labels,
        name=f"{name}-{split}",
        class_names=published.class_names,
        sums=published.sums[split],
    )


def _stems(split: Split) -> tuple[str, str]:
    return f"{_PREFIXES[split]}-images-idx3-ubyte", f"{_PREFIXES[split]}-labels-idx1-ubyte"


def _find(name: str, stem: str) -> Path | None:
    folders = [cache_folder() / name]
    if given := os.environ.get("FAILSCAPE_DATA"):
        folders.insert(0, Path(given) / name)
    candidates = (folder / file for folder in folders for file in (stem, f"{stem}.gz"))
    return next((path for path in candidates if path.is_file()), None)


def _download(name: str, stem: str, mirrors: tuple[str, ...], sha256: str) -> Path:
    """Download a file into the cache from the first mirror that gives the published bytes."""
    target = cache_folder() / name / f"{stem}.gz"
    failures = []
    for mirror in mirrors:
        try:
            content = _fetch(f"{mirror}{stem}.gz")
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}: {getattr(error, 'reason', None) or error}")
            continue
        try:
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
                read_idx(temporary, sha256=sha256)
        except DataError:
            failures.append(f"{mirror}: other bytes than the published ones")
            continue
        return target
    raise DataError(
        f"Expected to find or download {stem}.gz of {name}, but got: {'; '.join(failures)}. Set "
        f"FAILSCAPE_DATA to a folder with {name}/{stem}.gz in it, or put the file at {target}."
    )


def _fetch(url: str) -> bytes:
    """Download a small file over https.

    Raises:
        OSError: if the server cannot be reached or is too slow.
        ValueError: if the address, or where it leads, is not https, or the file is too large.
    """
    deadline = time.monotonic() + _FILE_SECONDS
    content = bytearray()
    if not url.startswith("https://"):
        raise ValueError("not an https address")
    with urllib.request.urlopen(url, timeout=_SOCKET_SECONDS) as response:  # noqa: S310 - https
        if not response.url.startswith("https://"):
            raise ValueError(f"led to {response.url}, which is not https")
        while chunk := response.read(2**18):
            content += chunk
            if len(content) > _MAX_DOWNLOAD_BYTES:
                raise ValueError(f"more than {_MAX_DOWNLOAD_BYTES // 2**20} MiB")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished after {_FILE_SECONDS:.0f} s")
    return bytes(content)
