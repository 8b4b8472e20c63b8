import os
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer

import pytest
from tests.labels.conftest import Server, make_project

from failscape import labels
from failscape.errors import LabelStoreError, LabelStoreUnavailable, MissingExtra
from failscape.labels import LabelStore
from failscape.labels.database import Database


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path: Path) -> None:
    database = Database(tmp_path)
    for opened in (database.reading(), database.writing()):
        with opened as connection:
            values = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            assert values == ["wal", 2, 1, 30_000]  # 2 is FULL
    database.close()


def test_postgresql_waits_for_the_disk_though_its_server_would_not(server: Server) -> None:
    url = server.new_schema()
    database = Database(url)
    with database.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert connection.exec_driver_sql(
            "SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'"
        ).scalar()
        reset = connection.exec_driver_sql("SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'")
        assert reset.scalar() == "off"
    database.close()


def test_a_failed_block_changes_nothing(where: Path | str) -> None:
    with LabelStore(where) as store:
        project = make_project(store, 2)
        with suppress(RuntimeError), store._database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM pixels")
            raise RuntimeError
        assert store.png(store.images(project.id)[0].id)


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        project = make_project(store, 2)
        blocker = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None, check_same_thread=False)
        blocker.execute("BEGIN IMMEDIATE")
        timer = Timer(0.3, lambda: blocker.execute("COMMIT"))
        timer.start()
        assert len(store.next_images(project.id, "Ada", 2)) == 2
        timer.join()
        blocker.close()


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabelStoreUnavailable, match="Expected a run folder at"):
        LabelStore(tmp_path / "nowhere")
    with pytest.raises(LabelStoreUnavailable, match="Expected labels at"):
        LabelStore(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_labels(server: Server) -> None:
    with pytest.raises(LabelStoreUnavailable, match="but there are none"):
        LabelStore(server.new_schema(), create=False)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "labels.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(LabelStoreUnavailable, match="file is not a database"):
        LabelStore(tmp_path)


def test_a_store_of_another_version(tmp_path: Path) -> None:
    LabelStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "labels.sqlite") as connection:
        connection.execute("UPDATE store SET version = 99")
    connection.close()
    with pytest.raises(LabelStoreUnavailable, match="got version 99"):
        LabelStore(tmp_path)


def test_a_full_disk_is_told_and_what_was_kept_stays(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        project = make_project(store, 2)
        with store._database.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    store = LabelStore(tmp_path)
    with store._database.reading() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LabelStoreUnavailable, match="database or disk is full"):
        make_project(store, 200, name="large")
    assert [one.name for one in store.projects()] == ["insects"]
    assert store.images(project.id)
    store.close()


def test_urls_that_cannot_be_used() -> None:
    with pytest.raises(LabelStoreError, match="Expected the URL of a database"):
        LabelStore("runs/00001")
    with pytest.raises(LabelStoreError, match="that SQLAlchemy knows, but got 'nosuch'"):
        LabelStore("nosuch://host/name")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(LabelStoreError) as caught:
        LabelStore(f"postgresql://me:secret@/labels?host={tmp_path}")
    assert "secret" not in str(caught.value)
    assert "me:***@" in str(caught.value)


def test_without_sqlalchemy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for name in ("store", "database", "rows", "selection"):
        monkeypatch.delitem(sys.modules, f"failscape.labels.{name}")
    with pytest.raises(MissingExtra, match=r"pip install 'failscape\[web\]'"):
        labels.LabelStore  # noqa: B018
    assert labels.consensus([1, 1, 2]) == 1


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"failscape\[web,postgresql\]"):
        LabelStore("postgresql://host/name")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LabelStoreUnavailable, match="Check the disk and the rights"):
        LabelStore(tmp_path)
