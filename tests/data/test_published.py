import gzip
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from failscape.data import published
from failscape.data.published import PUBLISHED, cache_folder, read_embedded_digits, read_published
from failscape.errors import DataError, StorageError

STEMS = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ASSETS = Path(str(files("failscape") / "assets" / "mnist-test"))


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's data nor the network: no mirror answers at port 1."""
    monkeypatch.delenv("FAILSCAPE_DATA", raising=False)
    monkeypatch.setenv("FAILSCAPE_CACHE", str(tmp_path / "cache"))
    for name in PUBLISHED:
        set_mirrors(monkeypatch, name, "https://localhost:1/")


def set_mirrors(monkeypatch: pytest.MonkeyPatch, name: str, *mirrors: str) -> None:
    monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], mirrors=mirrors))


def test_embedded_digits() -> None:
    images = read_embedded_digits("mnist-test")
    assert (len(images), images.image_shape) == (10_000, (1, 28, 28))
    assert images.class_names == tuple("0123456789")
    # The class counts of the published test set.
    assert torch.bincount(images.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert float(images.x.mean()) == pytest.approx(0.1325, abs=1e-4)
    assert images.ids[12] == "mnist-test-00012"


def test_mnist_test_needs_no_network() -> None:
    assert read_published("mnist", "test").fingerprint() == read_embedded_digits("mnist-test").fingerprint()


@pytest.mark.parametrize("zipped", [False, True])
def test_data_folder_before_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    given = tmp_path / "data" / "mnist"
    given.mkdir(parents=True)
    for stem in STEMS:
        raw = gzip.decompress((ASSETS / f"{stem}.gz").read_bytes())
        # Compressed otherwise than the published file: only what is inside counts.
        (given / f"{stem}.gz" if zipped else given / stem).write_bytes(gzip.compress(raw, 1) if zipped else raw)
    cache = tmp_path / "cache" / "mnist"
    cache.mkdir(parents=True)
    for stem in STEMS:
        (cache / stem).write_bytes(b"broken")
    monkeypatch.setenv("FAILSCAPE_DATA", str(tmp_path / "data"))
    assert len(read_published("mnist", "test")) == 10_000
    monkeypatch.delenv("FAILSCAPE_DATA")
    with pytest.raises(DataError, match="IDX file"):
        read_published("mnist", "test")


def test_another_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST in the place of Fashion-MNIST: intact, but not what was asked for."""
    shutil.copytree(ASSETS, tmp_path / "data" / "fashion-mnist")
    monkeypatch.setenv("FAILSCAPE_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"Expected SHA-256 .*Delete the file and download it again"):
        read_published("fashion-mnist", "test")


def test_no_network() -> None:
    with pytest.raises(DataError, match=r"localhost:1/: .*refused.*Set FAILSCAPE_DATA .* or put the file at"):
        read_published("fashion-mnist", "train")


def test_only_https(monkeypatch: pytest.MonkeyPatch) -> None:
    set_mirrors(monkeypatch, "fashion-mnist", "http://localhost:1/", "file:///etc/")
    with pytest.raises(DataError, match=r"http://localhost:1/: not an https address; file:///etc/: not an https"):
        read_published("fashion-mnist", "test")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class QuietServer(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A real https server for a folder, with a certificate that this process trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([openssl, *request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    folder = tmp_path / "mirror"
    folder.mkdir()
    server = QuietServer(("localhost", 0), partial(Quiet, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_port}/", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def not_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for the digits under another name, so that the copy in the package does not answer."""
    monkeypatch.setitem(PUBLISHED, "digits", PUBLISHED["mnist"])


@pytest.mark.usefixtures("not_embedded")
def test_download_from_the_second_mirror_then_from_the_cache(
    mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = mirror
    (folder / "good").mkdir()
    (folder / "bad").mkdir()
    for stem in STEMS:
        shutil.copy(ASSETS / f"{stem}.gz", folder / "good")
    (folder / "bad" / f"{STEMS[0]}.gz").write_bytes(gzip.compress(b"something else"))
    set_mirrors(monkeypatch, "digits", "https://localhost:1/", f"{url}bad/", f"{url}good/")
    assert len(read_published("digits", "test")) == 10_000
    assert sorted(file.name for file in (cache_folder() / "digits").iterdir()) == sorted(f"{s}.gz" for s in STEMS)
    set_mirrors(monkeypatch, "digits", "https://localhost:1/")
    assert len(read_published("digits", "test")) == 10_000


@pytest.mark.usefixtures("not_embedded")
def test_download_of_something_else_leaves_nothing(mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = mirror
    (folder / f"{STEMS[0]}.gz").write_bytes((ASSETS / f"{STEMS[1]}.gz").read_bytes())
    set_mirrors(monkeypatch, "digits", url, f"{url}missing/")
    with pytest.raises(DataError, match=r"other bytes than the published ones; .*File not found"):
        read_published("digits", "test")
    assert list((cache_folder() / "digits").iterdir()) == []


@pytest.mark.usefixtures("not_embedded")
def test_download_that_is_too_large(mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = mirror
    (folder / f"{STEMS[0]}.gz").write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr(published, "_MAX_DOWNLOAD_BYTES", 2**20)
    set_mirrors(monkeypatch, "digits", url)
    with pytest.raises(DataError, match="more than 1 MiB"):
        read_published("digits", "test")


@pytest.mark.usefixtures("not_embedded")
def test_cache_that_cannot_be_written(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = mirror
    shutil.copy(ASSETS / f"{STEMS[0]}.gz", folder)
    set_mirrors(monkeypatch, "digits", url)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FAILSCAPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="Expected to write"):
        read_published("digits", "test")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAILSCAPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/failscape")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "failscape"


def test_class_names_of_fashion_mnist() -> None:
    assert PUBLISHED["fashion-mnist"].class_names[0] == "T-shirt/top"
    assert PUBLISHED["fashion-mnist"].class_names[9] == "Ankle boot"


def test_the_embedded_training_digits_are_the_first_of_the_published_ones() -> None:
    cut = read_embedded_digits("mnist-train-10k")

    # Counts of the digits among the first 10,000 of MNIST's training set.
    assert torch.bincount(cut.y).tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    assert cut.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
