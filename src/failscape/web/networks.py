"""The networks of the runs: loaded when first needed, and kept."""

import threading
from typing import final

from failscape.classifiers import Classifier, load_classifier
from failscape.generators import Generator, load_generator


@final
class Networks:
    """Classifiers and generators by the specs that a run recorded.

    Args:
        allow_code: let python:FILE.py:FUNCTION specs run their file.

    Attributes:
        allow_code: as given.
    """

    def __init__(self, *, allow_code: bool) -> None:
        self.allow_code = allow_code
        self._lock = threading.Lock()
        self._classifiers: dict[str, Classifier] = {}
        self._generators: dict[str, Generator] = {}

    def classifier(self, spec: str) -> Classifier:
        """Return a classifier.

        Raises:
            FailscapeError: if it cannot be loaded, or needs code that was not allowed.
        """
        with self._lock:
            if spec not in self._classifiers:
                self._classifiers[spec] = load_classifier(spec, allow_code=self.allow_code)
            return self._classifiers[spec]

    def generator(self, spec: str) -> Generator:
        """Return a generator.

        Raises:
            FailscapeError: if it cannot be loaded.
        """
        with self._lock:
            if spec not in self._generators:
                self._generators[spec] = load_generator(spec)
            return self._generators[spec]
