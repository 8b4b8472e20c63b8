"""Draw `avatars.png`: for each trait a face without it, the same face with it, and the mask of what differs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from failscape.data import TRAITS, avatar_mask
from failscape.data.avatar_faces import Faces, draw_faces, has_combination, paint_faces

# At most one trait besides, so that what is switched is what is seen.
faces = draw_faces(4000, seed=6)
columns: list[Faces] = []
for place, trait in enumerate(TRAITS):
    plain = (~faces.traits).sum(dim=1) >= len(TRAITS) - 1
    candidates = (plain & has_combination(faces, {trait: False})).nonzero().flatten()
    columns.append(faces.select(candidates[place : place + 1]))

rows: list[np.ndarray] = []
for face, trait in zip(columns, TRAITS, strict=True):
    mask = avatar_mask(face, trait)[:, None].expand(-1, 3, -1, -1).to(torch.uint8) * 255
    rows.append(np.concatenate([paint_faces(face)[0], paint_faces(face.switched(trait))[0], mask[0].numpy()], axis=1))
picture = np.concatenate(rows, axis=2).transpose(1, 2, 0)
Image.fromarray(picture).resize((picture.shape[1] * 3 // 2, picture.shape[0] * 3 // 2), Image.Resampling.NEAREST).save(
    Path(__file__).with_name("avatars.png"), optimize=True
)
