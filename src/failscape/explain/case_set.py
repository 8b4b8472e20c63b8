"""A data set of corner cases on the disk, as a test bench takes it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from torch import Tensor

from failscape.figures import png_bytes
from failscape.storage import atomic_path, require_empty, write_bytes, write_tensors


def write_case_set(
    folder: Path,
    images: Float[Tensor, "N C H W"],
    y: Int[Tensor, " N"],
    *,
    class_names: Sequence[str],
    table: pa.Table,
    passed: pa.Table,
    latents: Mapping[str, Tensor],
) -> Path:
    """Write images with their true classes, what is said of each, and the latents that draw them.

    `images/` holds a folder a class, numbered as the classifier numbers them, which `failscape.load_images` reads;
    `corner-cases.parquet` has a row an image with its file and all columns of the table; `latents.safetensors` holds
    the latents, in the same order, with all that is needed to draw the images again; `passed-over.parquet` has a row
    for each class and style dimension that gave no case.

    Args:
        folder: a new or an empty one.
        images: the corner cases.
        y: their true classes.
        class_names: K names.
        table: a row an image.
        passed: a row for each dimension that was tried in vain, as `PassedOver.table`.
        latents: by their names.

    Returns:
        The folder.

    Raises:
        StorageError: if the folder holds something already, or cannot be written.
    """
    require_empty(folder)
    # Names of classes may hold what no file name can.
    folders = [f"{k:03d}-{re.sub(r'[^A-Za-z0-9]+', '-', name)}" for k, name in enumerate(class_names)]
    files = [f"images/{folders[k]}/{row:06d}.png" for row, k in enumerate(y.tolist())]
    for file, pixels in zip(files, images, strict=True):
        write_bytes(folder / file, png_bytes(pixels))
    write_tensors(folder / "latents.safetensors", latents)
    with_files = table.append_column("file", pa.array(files, pa.string()))
    for name, rows in (("corner-cases", with_files), ("passed-over", passed)):
        with atomic_path(folder / f"{name}.parquet") as temporary:
            pq.write_table(rows, temporary)
    return folder
