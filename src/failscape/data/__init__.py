"""Where images come from: image sets, their readers, and corruptions."""

from failscape.data.avatar_faces import HAIR_COLOURS, TRAITS, avatar_mask
from failscape.data.avatars import Avatars, draw_avatars
from failscape.data.corruptions import CORRUPTIONS, corrupt
from failscape.data.image_files import read_image_files
from failscape.data.images import Batch, ImageSet, Source
from failscape.data.specs import load_images, uncorrupted

__all__ = [
    "CORRUPTIONS",
    "HAIR_COLOURS",
    "TRAITS",
    "Avatars",
    "Batch",
    "ImageSet",
    "Source",
    "avatar_mask",
    "corrupt",
    "draw_avatars",
    "load_images",
    "read_image_files",
    "uncorrupted",
]
