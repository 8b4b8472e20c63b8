"""A labelling project, on SQLite and on a PostgreSQL server that the tests start themselves."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch

from failscape.labels import LabelStore, LabelTask, Project, teaching_value

# Where Debian puts the programs of the newest version that is installed.
PROGRAMS = max((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
CLASSES = ("ant", "bee", "cat")


@dataclass
class Server:
    """A PostgreSQL server of the tests' own, reached through a socket in its folder alone."""

    programs: Path
    folder: Path
    user: str | None

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL, which refuses to work for root."""
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        identity = {} if self.user is None else {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid}
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        # To a file: the server would keep a pipe open.
        with (self.folder / "log").open("a") as log:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, check=False, timeout=60, **identity
            )
        assert done.returncode == 0, (self.folder / "log").read_text()

    def start(self) -> None:
        # Kept off the disk for speed, and careless about commits, so that ours must be careful themselves.
        settings = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-w", "-o", f"{settings} -c synchronous_commit=off -c max_connections=60", "start")

    def stop(self) -> None:
        """Stop without any tidying up, as a crash would."""
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")

    def new_schema(self) -> str:
        """Make an empty schema and return the URL under which it is all there is; quicker than a new database."""
        name = f"labels_{uuid.uuid4().hex}"
        engine = sa.create_engine(f"postgresql+psycopg://postgres@/postgres?host={self.folder}")
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        engine.dispose()
        return f"postgresql://postgres@/postgres?host={self.folder}&options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if PROGRAMS is None:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql: apt-get install postgresql")
    # Not in pytest's folder: only its owner may enter that, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="failscape-pg-"))
    user = None
    if os.geteuid() == 0:
        user = "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
        shutil.chown(folder, user)
    server = Server(PROGRAMS, folder, user)
    try:
        server.run("initdb", "--no-sync", "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a store lies: a run folder, or an empty schema of a server."""
    if request.param == "sqlite":
        return tmp_path
    server: Server = request.getfixturevalue("server")
    return server.new_schema()


@pytest.fixture
def store(where: Path | str) -> Iterator[LabelStore]:
    with LabelStore(where) as store:
        yield store


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LabelStore]:
    """A store on SQLite only, for what does not touch the database's own ways."""
    (tmp_path / "run").mkdir()
    with LabelStore(tmp_path / "run") as store:
        yield store


def make_task(n: int = 12, *, prefix: str = "image", classes: tuple[str, ...] = CLASSES) -> LabelTask:
    """Make images of which no two are alike; image i has grey value i in its corner."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 6, 5), dtype=torch.uint8, generator=rng)
    images[:, 0, 0, 0] = torch.arange(n)
    probs = torch.randn(n, len(classes), generator=rng).softmax(dim=1)
    oracle_probs = torch.randn(n, len(classes), generator=rng).softmax(dim=1)
    return LabelTask(
        images=images,
        names=tuple(f"{prefix}-{i:02d}" for i in range(n)),
        class_names=classes,
        probs=probs,
        oracle_probs=oracle_probs,
        origins=("generated",) * n,
        priority=teaching_value(probs, oracle_probs),
        sources=("",) * n,
    )


def make_project(store: LabelStore, n: int = 12, *, labellers: int = 1, name: str = "insects") -> Project:
    rng = torch.Generator().manual_seed(1)
    return store.create_project(name, make_task(n), labellers_per_image=labellers, rng=rng)
