"""Three labellers of each project, each in a process, who write down what was acknowledged until they are killed.

Run as `python labelling.py WHERE PROJECT [WHERE PROJECT …]`.
"""

import os
import sys
import time
import uuid
from pathlib import Path

from failscape.labels import LabelStore, NewLabel


def work(where: Path | str, project: str, name: str) -> None:
    with LabelStore(where) as store:
        while images := store.next_images(project, name, 3):
            for image in images:
                client_id = str(uuid.uuid4())
                label = NewLabel(image_id=image.id, label=image.prediction, client_id=client_id)
                event = store.label(project, name, label)
                # Only now has the labeller been told; one short write, so that no line is torn.
                os.write(1, f"{project} {event.id} {client_id} {image.id} {name}\n".encode())
                # As people do; SQLite lets those who wait in turn only by chance.
                time.sleep(0.005)


if __name__ == "__main__":
    # Forked after the import, which takes longest; each process opens its own store.
    children = []
    for place, key in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        for labeller in ("Ada", "Bo", "Cy"):
            child = os.fork()
            if child == 0:
                work(place if "://" in place else Path(place), key, labeller)
                os._exit(0)
            children.append(child)
    for child in children:
        os.waitpid(child, 0)
