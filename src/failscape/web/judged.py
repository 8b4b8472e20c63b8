"""What a run's classifier says of all images of the run's data: asked once, in the background, and kept."""

import hashlib
import logging
import secrets
import threading
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import FailscapeError, StorageError
from failscape.report.run import Run, Step
from failscape.storage import atomic_path
from failscape.study.config import ImagesConfig, StudyConfig
from failscape.study.fingerprint import classifier_digest
from failscape.study.inputs import StepInputs, batch_size, load_labelled
from failscape.web.networks import Networks
from failscape.web.pictures import eight_bit

_log = logging.getLogger(__name__)

# Where a run keeps which images its classifier gets wrong: a small file for each of its sets of images.
FOLDER = "mistakes"
_COLUMNS = ("row", "y", "predicted", "confidence")


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """Images of a run, all of them, and whose verdict is asked.

    Attributes:
        images: which they are.
        classifier: its spec.
    """

    images: ImagesConfig
    classifier: str


@final
@dataclass(frozen=True, kw_only=True)
class Misjudged:
    """An image that a classifier gets wrong.

    Attributes:
        row: in its set.
        y: the class that it is labelled.
        predicted: the class that the classifier gives the 8-bit image.
        confidence: the classifier's probability of that.
    """

    row: int
    y: int
    predicted: int
    confidence: float


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is known of a set by now.

    Attributes:
        images: the set, labels numbered as the classifier's classes; None until it is loaded, or if it cannot be.
        classified: how many of its images were classified.
        mistakes: those of them that the classifier gets wrong.
        ended: whether no more is to come.
        problem: why there is no more, as a sentence; empty if all is well.
        version: of the images as they were loaded.
    """

    images: ImageSet | None
    classified: int
    mistakes: tuple[Misjudged, ...]
    ended: bool
    problem: str
    version: str


def step_data(run: Run, step: Step) -> tuple[Data | None, bool]:
    """Return the images that a step chose from, and whether it aimed at the class that each is labelled.

    The set is that of the study, without its choice and its limit. None where the run does not say which it was.
    """
    classifier, images = step.record.get("classifier"), step.record.get("images")
    if not classifier or not images:
        return None, True
    config = _study(run.study)
    for index, each in enumerate(() if config is None else config.steps, start=1):
        if config is not None and step.folder.name == f"{index:02d}-{each.name}":
            chosen = StepInputs.of(each, config).images
            every = chosen.model_copy(update={"only": "all", "limit": None, "targets": "label"})
            return Data(images=every, classifier=str(classifier)), chosen.targets == "label"
    if str(images).endswith(" files"):
        return None, True
    return Data(images=ImagesConfig(spec=str(images), only="all"), classifier=str(classifier)), True


@final
class Judgements:
    """The classifiers' verdicts on the data of the runs; each is asked for when it is first wanted.

    Args:
        networks: of the runs.
    """

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._lock = threading.Lock()
        self._found: dict[tuple[Path, Data], _Judging] = {}

    def of(self, folder: Path, data: Data, *, patience: float = 0.0, again: bool = False) -> Judged:
        """Return what is known by now.

        Args:
            folder: of the run; what is found is kept there, where it can be written.
            data: the images, and whose verdict is asked.
            patience: seconds to wait for the end.
            again: ask anew if that failed before; what was missing may be there by now.
        """
        with self._lock:
            key = (folder, data)
            if key not in self._found or (again and self._found[key].failed):
                self._found[key] = _Judging(folder, data, self._networks)
        return self._found[key].known(patience)

    def close(self) -> None:
        """Ask for nothing more."""
        for judging in self._found.values():
            judging.stop()


class _Judging:
    """A thread that classifies a set."""

    def __init__(self, folder: Path, data: Data, networks: Networks) -> None:
        self._data = data
        self._networks = networks
        name = hashlib.sha256(f"{data.classifier}\n{data.images.model_dump_json()}".encode()).hexdigest()[:16]
        self._file = folder / FOLDER / f"{name}.parquet"
        self._images: ImageSet | None = None
        self._classified = 0
        self._mistakes: list[Misjudged] = []
        self._problem = ""
        self._version = secrets.token_hex(6)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="judging", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        return self._ended.is_set() and bool(self._problem)

    def known(self, patience: float) -> Judged:
        self._ended.wait(patience)
        ended = self._ended.is_set()
        with self._lock:
            return Judged(
                images=self._images,
                classified=self._classified,
                mistakes=tuple(self._mistakes),
                ended=ended,
                problem=self._problem,
                version=self._version,
            )

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        try:
            classifier = self._networks.classifier(self._data.classifier)
            images = load_labelled(self._data.images, classifier)
            known = _read(self._file)
            fingerprint = None if known is None else _fingerprint(images, classifier, self._data.classifier)
            with self._lock:
                self._images = images
                if known is not None and known[0] == fingerprint:
                    self._classified, self._mistakes = len(images), known[1]
                    return
            self._classify(images, classifier)
            if not self._stopped.is_set():
                self._ended.set()
                fingerprint = fingerprint or _fingerprint(images, classifier, self._data.classifier)
                # A run that cannot be written is shown all the same, and its images are classified again next time.
                with suppress(StorageError):
                    _write(self._file, fingerprint, self._mistakes, images)
        except FailscapeError as error:
            self._problem = str(error)
        except Exception as error:  # noqa: BLE001 - a thread has nobody else to tell
            _log.exception("classifying the images of a run")
            self._problem = f"Classifying stopped with an unexpected {type(error).__name__}; the server's log has more."
        finally:
            self._ended.set()

    def _classify(self, images: ImageSet, classifier: Classifier) -> None:
        for batch in images.batches(batch_size(images)):
            confidence, predicted = classifier.probs(eight_bit(batch.x)).max(dim=1)
            wrong = predicted != batch.y
            columns = (column[wrong].tolist() for column in (batch.indices, batch.y, predicted, confidence))
            found = [
                Misjudged(row=row, y=y, predicted=taken, confidence=sure)
                for row, y, taken, sure in zip(*columns, strict=True)
            ]
            with self._lock:
                self._mistakes += found
                self._classified += len(batch.y)
            if self._stopped.is_set():
                return


def _fingerprint(images: ImageSet, classifier: Classifier, spec: str) -> bytes:
    return f"{images.fingerprint()} {classifier_digest(classifier, spec)} {torch.__version__}".encode()


def _read(file: Path) -> tuple[bytes, list[Misjudged]] | None:
    """Return what was kept, with the fingerprint of what it is about; None where nothing that can be read was."""
    try:
        table = pq.read_table(file)
        columns = (table.column(name).to_pylist() for name in _COLUMNS)
        found = [Misjudged(row=row, y=y, predicted=k, confidence=p) for row, y, k, p in zip(*columns, strict=True)]
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    return metadata.get(b"fingerprint", b""), found


def _write(file: Path, fingerprint: bytes, mistakes: list[Misjudged], images: ImageSet) -> None:
    names = images.class_names
    columns = {
        "id": pa.array([images.ids[each.row] for each in mistakes], pa.string()),
        "true_class": pa.array([names[each.y] for each in mistakes], pa.string()),
        "prediction": pa.array([names[each.predicted] for each in mistakes], pa.string()),
        "row": pa.array([each.row for each in mistakes], pa.int64()),
        "y": pa.array([each.y for each in mistakes], pa.int64()),
        "predicted": pa.array([each.predicted for each in mistakes], pa.int64()),
        "confidence": pa.array([each.confidence for each in mistakes], pa.float64()),
    }
    table = pa.table(columns).replace_schema_metadata({b"fingerprint": fingerprint})
    with atomic_path(file) as temporary:
        pq.write_table(table, temporary)


@lru_cache(maxsize=32)
def _study(text: str) -> StudyConfig | None:
    """Return the study of a run; None for what is none, such as a retraining."""
    try:
        return StudyConfig.from_mapping(tomllib.loads(text)) if text else None
    except (tomllib.TOMLDecodeError, FailscapeError):
        return None
