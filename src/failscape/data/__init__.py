"""Where images come from: image sets, their readers, and corruptions."""

from failscape.data.corruptions import CORRUPTIONS, corrupt
from failscape.data.image_files import read_image_files
from failscape.data.images import Batch, ImageSet, Source
from failscape.data.specs import load_images

__all__ = ["CORRUPTIONS", "Batch", "ImageSet", "Source", "corrupt", "load_images", "read_image_files"]
