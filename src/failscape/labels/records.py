"""What a label store hands out: projects, images, events, progress. Plain data, no database."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, final, get_args

from failscape.explain.method import Origin
from failscape.labels.task import NOT_ANY_NAME

Queue = Literal["teaching", "random"]
QUEUES: tuple[Queue, ...] = get_args(Queue)

# The answer that no class fits.
NOT_ANY = -1


@final
@dataclass(frozen=True, kw_only=True)
class Project:
    """Images that are labelled together.

    Attributes:
        id: opaque.
        name: as people call it.
        class_names: the answers, besides "not any class".
        classifier: spec of the one whose mistakes are looked for, "" where that is not known.
        labellers_per_image: how many people each image is asked of.
        queue: in which order images are asked by default: what teaches most first, or at random.
        images: how many there are.
        created: when it was made, in UTC.
    """

    id: str
    name: str
    class_names: tuple[str, ...]
    classifier: str
    labellers_per_image: int
    queue: Queue
    images: int
    created: datetime

    def class_name(self, label: int) -> str:
        """Return the name of a class, or "not any class"."""
        return NOT_ANY_NAME if label == NOT_ANY else self.class_names[label]


@final
@dataclass(frozen=True, kw_only=True)
class LabelImage:
    """An image of a project, without its pixels.

    Attributes:
        id: opaque; the only address that an image has.
        name: where it comes from.
        origin: how it came about.
        source: what it is or was made from, "" where that is nothing else; images of the same are alike.
        probs: the classifier's probabilities.
        oracle_probs: the oracle's, if there is one.
        priority: the higher, the earlier it is asked in the order of what teaches most.
        queue: in which order it is asked, where `LabelStore.next_images` handed it out; None elsewhere.
    """

    id: str
    name: str
    origin: Origin
    source: str
    probs: tuple[float, ...]
    oracle_probs: tuple[float, ...] | None
    priority: float
    queue: Queue | None = None

    @property
    def prediction(self) -> int:
        """The class that the classifier gives."""
        return self.probs.index(max(self.probs))

    @property
    def confidence(self) -> float:
        """The classifier's probability of that class."""
        return max(self.probs)

    @property
    def oracle_prediction(self) -> int | None:
        """The class that the oracle gives."""
        return None if self.oracle_probs is None else self.oracle_probs.index(max(self.oracle_probs))


@final
@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a labeller did; events are appended and never changed.

    Attributes:
        id: later events have higher numbers.
        client_id: the identifier that the labeller's program gave it.
        image_id: the image.
        labeller: by name.
        label: a class, or `NOT_ANY`; None for an undo.
        undoes: the event that it undoes; None for a label.
        time: when it was given, in UTC, and at the latest when the store took it.
        seconds: how long the labeller took, where that was measured.
        queue: in which order the image was asked; None for an undo, for a label that no queue asked for, and where that
            is not known.
        repeated: whether the store had it already, so that nothing was written this time.
    """

    id: int
    client_id: str
    image_id: str
    labeller: str
    label: int | None
    undoes: int | None
    time: datetime
    seconds: float | None
    queue: Queue | None = None
    repeated: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class NewLabel:
    """A label on its way into the store.

    Attributes:
        image_id: the image.
        label: a class, or `NOT_ANY`.
        client_id: an identifier that nobody else uses, such as a UUID, and the same when the label is sent again.
        seconds: how long the labeller took.
        given_ms: when the labeller gave it, in milliseconds since 1970 by the clock of the labeller's program; None
            for now. A label that comes late does not take the place of one that was given after it.
        queue: in which order the image was asked, as `LabelImage.queue` says; None for a label that no queue asked for,
            and where that is not known.
    """

    image_id: str
    label: int
    client_id: str
    seconds: float | None = None
    given_ms: int | None = None
    queue: Queue | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a project is, and one labeller in it.

    Attributes:
        images: in the project.
        finished: images with as many labels as were asked for.
        labels: labels that hold, of everybody.
        missing: labels that are still wanted; what an image has beyond those asked for makes up for no other.
        mine: labels of this labeller that hold.
        left: images that this labeller can still be asked; some may be with others just now.
        per_minute: this labeller's labels a minute over the last minutes, from the first to the last of them; None
            where there are fewer than two.
    """

    images: int
    finished: int
    labels: int
    missing: int
    mine: int
    left: int
    per_minute: float | None
