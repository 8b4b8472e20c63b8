"""The exception tree. Every message says what was expected, what came, and what to do."""


class FailscapeError(Exception):
    """Base of all errors that failscape raises on purpose; the command line turns them into exit code 2."""


class SpecError(FailscapeError):
    """A spec such as `embedded:NAME` names nothing that can be loaded."""


class DataError(FailscapeError):
    """Images or labels are not what they must be."""


class ImageError(DataError):
    """An image is unreadable, of the wrong size, or holds values outside [0, 1]."""


class LabelError(DataError):
    """Labels are missing, out of range, or of one class only."""


class ClassifierError(FailscapeError):
    """A classifier does not fit its images or classes, or returns values that are not finite."""


class UnsupportedClassifier(ClassifierError):
    """A classifier lacks what a method needs, such as gradients."""


class GeneratorError(FailscapeError):
    """A generator does not fit the images or the latents that it is given."""


class UnsupportedGenerator(GeneratorError):
    """A generator lacks what a method needs, such as an encoder."""


class MetricError(FailscapeError):
    """What is to be measured has too few rows, another width, or values that are not finite."""


class WeightsError(FailscapeError):
    """A weights file is truncated, hostile, of another format, or of another architecture."""


class ConfigError(FailscapeError):
    """A configuration has an unknown key or a value of the wrong kind."""


class StorageError(FailscapeError):
    """A file cannot be written: a read-only folder, a full disk, a name that is taken."""


class TrainingError(FailscapeError):
    """A training cannot go on: its loss or its weights are no longer finite."""


class CheckpointError(FailscapeError):
    """No intact checkpoint of this training can be found, or it belongs to other settings."""


class StudyError(FailscapeError):
    """A study cannot give what was asked of it, because one of its steps failed."""


class MissingExtra(FailscapeError):
    """An optional part was asked for whose packages are not installed."""


class LabelStoreError(FailscapeError):
    """A label store cannot take or give what it was asked for."""


class LabelStoreUnavailable(LabelStoreError):
    """The database of a label store cannot be used for now: it is busy, full, out of reach, or of another version."""


class NotInStore(LabelStoreError):
    """A label store has no project, image or event of that name."""


class LabelConflict(LabelStoreError):
    """What is to be written contradicts what a label store holds already."""
