"""The database behind the label store: its tables, and connections that keep what they acknowledge."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from failscape.errors import LabelStoreError, LabelStoreUnavailable, MissingExtra

SCHEMA_VERSION = 3
FILE_NAME = "labels.sqlite"

# How long a writer waits for the others before it gives up.
_BUSY_MS = 30_000
# Any number, the same in every process: PostgreSQL lets one at a time make the tables.
_SCHEMA_LOCK = 0x6661696C

_metadata = sa.MetaData()
# SQLite numbers rows by itself only in a column that is called INTEGER.
_row_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

store = sa.Table("store", _metadata, sa.Column("version", sa.Integer, primary_key=True))
projects = sa.Table(
    "projects",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("class_names", sa.JSON, nullable=False),
    sa.Column("classifier", sa.Text, nullable=False),
    sa.Column("labellers_per_image", sa.Integer, nullable=False),
    sa.Column("queue", sa.String(16), nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)
images = sa.Table(
    "images",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    # Little-endian float32, a value a class.
    sa.Column("probs", sa.LargeBinary, nullable=False),
    sa.Column("oracle_probs", sa.LargeBinary),
    sa.Column("priority", sa.Double, nullable=False),
    sa.Column("lot", sa.Double, nullable=False),
    sa.UniqueConstraint("project_id", "position"),
    sa.UniqueConstraint("project_id", "name"),
)
# The pixels lie apart, so that going through the queue does not go through them.
pixels = sa.Table(
    "pixels",
    _metadata,
    sa.Column("image_id", sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("png", sa.LargeBinary, nullable=False),
)
labellers = sa.Table(
    "labellers",
    _metadata,
    sa.Column("id", _row_number, primary_key=True),
    sa.Column("name", sa.String(100), nullable=False, unique=True),
)
events = sa.Table(
    "events",
    _metadata,
    sa.Column("id", _row_number, primary_key=True),
    sa.Column("client_id", sa.String(100), nullable=False, unique=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("image_id", sa.ForeignKey("images.id"), nullable=False),
    sa.Column("labeller_id", sa.ForeignKey("labellers.id"), nullable=False),
    # A label event has a label, an undo event the event that it undoes; an event is undone at most once.
    sa.Column("label", sa.Integer),
    sa.Column("undoes", sa.ForeignKey("events.id"), unique=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Double),
    # In which order the image was asked, so that the random one can be a control; NULL where no queue asked.
    sa.Column("queue", sa.String(16)),
    sa.CheckConstraint("(label IS NULL) <> (undoes IS NULL)", name="label_or_undo"),
    sa.Index("events_by_image", "project_id", "image_id", "labeller_id"),
    sqlite_autoincrement=True,
)
# Not part of the record: who was lately handed which image.
reservations = sa.Table(
    "reservations",
    _metadata,
    sa.Column("image_id", sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("labeller_id", sa.ForeignKey("labellers.id"), primary_key=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("tab", sa.String(100), nullable=False),
    sa.Column("queue", sa.String(16)),
    sa.Column("granted_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Index("reservations_by_project", "project_id"),
)


@final
class Database:
    """Connections to one database.

    On SQLite writers queue up (`BEGIN IMMEDIATE`), readers do not wait (write-ahead log), and a commit returns once it
    is on the disk (`synchronous=FULL`). On PostgreSQL the session asks for `synchronous_commit`, whatever the server's
    default is.

    Args:
        where: a run folder, which then holds `labels.sqlite`, or the URL of a database.
        create: make the database if there is none; otherwise that is an error.

    Raises:
        MissingExtra: if the driver for the URL is not installed.
        LabelStoreError: if the URL is none.
        LabelStoreUnavailable: if there is no store, it cannot be reached, or is of another version.
    """

    def __init__(self, where: Path | str, *, create: bool = True) -> None:
        url, name = _url(where)
        if isinstance(where, Path):
            file = where / FILE_NAME
            if not (where.is_dir() if create else file.is_file()):
                raise LabelStoreUnavailable(
                    f"Expected {'a run folder at' if create else 'labels at'} {where if create else file}, but there "
                    "is none. Check the path."
                )
        self.name = name
        self._engine = _engine(url)
        if url.get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        elif url.get_backend_name() == "postgresql":
            event.listen(self._engine, "connect", _prepare_postgresql)
        self._writer = self._engine.execution_options(failscape_writes=True)
        try:
            self._prepare(create=create)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection that sees one state of the database.

        Raises:
            LabelStoreUnavailable: if the database fails.
        """
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection whose changes are on the disk, all of them, when the block ends well.

        Raises:
            LabelStoreError: if the database refuses what is written; nothing was changed then.
            LabelStoreUnavailable: if the database fails; nothing was changed then either.
        """
        with self._errors(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _prepare(self, *, create: bool) -> None:
        with self.reading() as connection:
            exists = sa.inspect(connection).has_table("store")
        if not exists:
            if not create:
                raise LabelStoreUnavailable(
                    f"Expected labels in {self.name}, but there are none. Make a project first."
                )
            with self.writing() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
                # Another process may have been quicker since.
                _metadata.create_all(connection)
                if connection.scalar(sa.select(store.c.version)) is None:
                    connection.execute(store.insert().values(version=SCHEMA_VERSION))
        with self.reading() as connection:
            version = connection.scalar(sa.select(store.c.version))
        if version != SCHEMA_VERSION:
            raise LabelStoreUnavailable(
                f"Expected a label store of version {SCHEMA_VERSION} in {self.name}, but got version {version}. "
                "Use the failscape that wrote it."
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()
            message = f"Expected to use the label store {self.name}, but got: {cause[0] if cause else 'no answer'}."
            if isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):
                raise LabelStoreError(f"{message} Nothing was changed.") from error
            check = "the disk and the rights" if self._engine.dialect.name == "sqlite" else "that the database runs"
            raise LabelStoreUnavailable(f"{message} Check {check}; labels acknowledged are kept.") from error


def _url(where: Path | str) -> tuple[sa.URL, str]:
    """Return the URL, and how messages call it: without its password."""
    if isinstance(where, Path):
        return sa.URL.create("sqlite", database=str((where / FILE_NAME).resolve())), str(where / FILE_NAME)
    try:
        url = sa.make_url(where)
    except ArgumentError as error:
        raise LabelStoreError(
            "Expected the URL of a database such as postgresql://user@host/name, but got something else. A run folder "
            "is given as a path."
        ) from error
    if url.drivername in ("postgresql", "postgres"):
        # Which driver a plain URL means differs between versions of SQLAlchemy.
        url = url.set(drivername="postgresql+psycopg")
    return url, url.render_as_string(hide_password=True)


def _engine(url: sa.URL) -> sa.Engine:
    try:
        # A connection that the server closed meanwhile is noticed before it is used.
        return sa.create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
    except NoSuchModuleError as error:
        raise LabelStoreError(
            f"Expected a URL of a database that SQLAlchemy knows, but got {url.drivername!r}. Use sqlite or postgresql."
        ) from error
    except ModuleNotFoundError as error:
        extra = "'failscape[web,postgresql]'" if url.get_backend_name() == "postgresql" else str(error.name)
        raise MissingExtra(
            f"Expected {error.name} for {url.drivername} databases, but it is not installed. Run: pip install {extra}"
        ) from error


def _prepare_sqlite(connection: Any, record: object) -> None:
    # The driver would begin transactions by itself, and too late; `_begin_sqlite` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """Switch to the write-ahead log; when several processes do that at once SQLite does not wait by itself."""
    import sqlite3

    deadline = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that begins by reading and then writes could find that another has written meanwhile.
    writes = connection.get_execution_options().get("failscape_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgresql(connection: Any, record: object) -> None:
    connection.execute("SET SESSION synchronous_commit = 'on'")
    connection.commit()
