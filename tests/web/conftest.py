"""A run with hostile names, servers on it, and a browser."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import torch
import uvicorn

from failscape.classifiers import build_network, load_classifier, save_classifier
from failscape.explain import StyleInfluenceResult
from failscape.explain.style_population import sample_styles
from failscape.generators import VAE, StyleGenerator, load_generator, save_generator
from failscape.labels import LabelStore, Project, label_task
from failscape.storage import write_json
from failscape.study import StudyConfig, run_study
from failscape.web.access import Access
from failscape.web.app import create_app
from failscape.web.directions import Walk, influence_step
from failscape.web.pages import PAGES
from failscape.web.server import known_origins
from failscape.web.site import Page, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"

CLASSES = ("<img src=x onerror=alert(1)>", "../../x", "cat & 'dog'")
TITLE = "<script>alert(2)</script> title"
SHAPE = (1, 8, 8)


def save_networks(folder: Path) -> None:
    """Save a classifier of hostile class names, the same as an oracle, and a VAE, which reaches every class."""
    network = build_network("plain-cnn", seed=0, image_shape=SHAPE, num_classes=3, width=4).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(image_shape=SHAPE, latent_dim=2, hidden=(16,))
    with torch.no_grad():
        # Weights as they are drawn give grey images and one class: more contrast, and logits that differ and are even.
        for parameter in vae.decoder.parameters():
            parameter *= 4
        logits = network(vae.sample(500, rng=torch.Generator().manual_seed(0)))
        last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        scale = 3 / logits.std(dim=0).max()
        last.weight *= scale
        last.bias.copy_((last.bias - logits.mean(dim=0)) * scale)
    for name in ("classifier", "oracle"):
        save_classifier(
            folder / name,
            architecture="plain-cnn",
            sizes={"width": 4},
            state=network.state_dict(),
            class_names=CLASSES,
            image_shape=SHAPE,
        )
    save_generator(vae, folder / "vae")


def build_run(folder: Path, *, images: int = 24, limit: int | None = None) -> Path:
    """Run a study of a tiny classifier whose classes and step bear hostile names, on at most `limit` mistakes."""
    save_networks(folder)
    rng = np.random.default_rng(0)
    np.savez(folder / "images.npz", x=rng.random((images, 8, 8), dtype=np.float32), y=np.arange(images) % 3)
    quick = {"steps": 20, "rounds": 1, "candidates": 2, "bank": 64, "plane": 16}
    study = {
        "name": "toy",
        "images": {"spec": str(folder / "images.npz")} | ({} if limit is None else {"limit": limit}),
        "classifier": {"spec": str(folder / "classifier")},
        "oracle": {"spec": str(folder / "oracle")},
        "generator": {"spec": str(folder / "vae")},
        "steps": [
            {"method": "sympathetic-examples", "title": TITLE, "settings": quick},
            {"method": "edge-cases", "settings": {"candidates": 2}},
        ],
    }
    return run_study(StudyConfig.from_mapping(study), out=folder / "runs")


def make_project(run: Path, count: int, *, labellers: int = 1, name: str = "toy") -> Project:
    """Make a project of random images in a run's own store."""
    rng = torch.Generator().manual_seed(0)
    classifier = load_classifier(str(run.parents[1] / "classifier"))
    x = torch.rand(count, *SHAPE, generator=rng)
    task = label_task(x, classifier, names=[f"{i:05d}" for i in range(count)])
    with LabelStore(run) as store:
        return store.create_project(name, task, labellers_per_image=labellers, queue="random", rng=rng)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to look at, with a project of 12 images; nobody labels it."""
    run = build_run(tmp_path_factory.mktemp("toy"))
    make_project(run, 12)
    return run


@pytest.fixture
def fresh_run(tmp_path: Path) -> Path:
    """A run of one's own, without steps: what labelling needs."""
    save_networks(tmp_path)
    run = tmp_path / "runs" / "00001-labels"
    run.mkdir(parents=True)
    return run


@dataclass
class Served:
    """A running server.

    Attributes:
        links: those that were announced, the latest last.
    """

    base: str
    access: Access
    site: Site
    app: Any
    links: list[str] = field(default_factory=list)

    @property
    def run(self) -> str:
        """The address of the first run."""
        return f"{self.base}/runs/{next(iter(self.site.runs))}"

    @contextmanager
    def client(self, *, let_in: bool = True) -> Iterator[httpx.Client]:
        """Yield a client that states its origin, as browsers do."""
        with httpx.Client(base_url=self.base, headers={"Origin": self.base}, timeout=30) as client:
            if let_in:
                assert client.get(self.access.link(), headers={"Sec-Fetch-Site": "none"}).status_code == 303
            yield client


def walk_of(served: Served) -> Walk:
    """Return what the first run of a server lets walk along."""
    run = next(iter(served.site.runs.values()))
    found = influence_step(run.read())
    assert found is not None
    return Walk(*found, served.site.networks)


def cores_shared(work: Callable[[], object]) -> float:
    """Return how many times longer work takes than on a core of its own, since other work shares the cores: 1 or more.

    Bounds on how long people wait are for cores of one's own.
    """
    wall, own = time.perf_counter(), time.thread_time()
    for _ in range(20):
        work()
    return max(1.0, (time.perf_counter() - wall) / (time.thread_time() - own))


def report_times(what: str, times: Sequence[float], shared: float) -> float:
    """Print how long something took, in ms, and return the median."""
    median, late = np.quantile(times, [0.5, 0.95]).tolist()
    print(  # noqa: T201 - the measurement
        f"{what}, ms: median {median:.0f}, 95th percentile {late:.0f} of {len(times)}, cores shared {shared:.1f} times"
    )
    return float(median)


@contextmanager
def serving(
    runs: Sequence[Path], *, pages: Sequence[Page] = PAGES, labels: str | None = None, names: Sequence[str] = ()
) -> Iterator[Served]:
    """Serve runs from a thread."""
    # As the real server's: without its protocol named, asyncio leaves each answer to wait 40 ms for an acknowledgement.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        links: list[str] = []
        access = Access(known_origins("127.0.0.1", port, names), announce=links.append)
        site = Site(runs, pages, labels=labels)
        app = create_app(site, access)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Served(base=f"http://127.0.0.1:{port}", access=access, site=site, app=app.app, links=links)
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def styled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the embedded digits, with a result that names three styles: measuring one takes a minute."""
    generator = load_generator("embedded:mnist-stylegan2")
    assert isinstance(generator, StyleGenerator)
    spread = sample_styles(generator, 100, rng=torch.Generator().manual_seed(0)).s.std(dim=0)
    size, shown = len(spread), torch.tensor([243, 306, 477])
    nothing = torch.zeros(10, size)
    result = StyleInfluenceResult(
        images=torch.zeros(18, 1, 28, 28),
        ids=tuple(f"s{d}" for d in range(size)),
        layers=("layer 1, convolution, 7 × 7",) * size,
        mean=nothing,
        error=nothing,
        halves=nothing[:2],
        count=torch.ones(10, dtype=torch.long),
        right=torch.ones(10, dtype=torch.long),
        predicted=torch.ones(10, dtype=torch.long),
        spread=spread,
        ks=nothing[0],
        ks_p=nothing[0],
        ks_held=nothing[0],
        telling=shown,
        random=shown,
        right_styles=nothing[:, :9],
        wrong_styles=nothing[:, :9],
        shown=shown,
        start=torch.tensor([3, 8, 2]),
        shift=torch.tensor([-2.0, 13.0, -12.0]),
        reached=torch.ones(3, dtype=torch.long),
        fractions=torch.tensor([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0]),
        place=torch.zeros(3, 6, dtype=torch.long),
        descriptions=("thins the stroke", "<img src=x onerror=alert(1)>", "adds ink"),
        score="logit-margin",
        class_names=tuple("0123456789"),
    )
    run = tmp_path_factory.mktemp("styled") / "00001-styles"
    step = run / "steps" / "01-style-influence"
    step.mkdir(parents=True)
    result.save(step)
    record = {
        "name": "style-influence",
        "method": "style-influence",
        "status": "done",
        "images": "embedded:mnist-test+half-corrupted",
        "classifier": "embedded:mnist-corrupted",
        "oracle": "embedded:mnist-oracle-corrupted",
        "generator": "embedded:mnist-stylegan2",
    }
    write_json(step / "step.json", record)
    return run


@pytest.fixture(scope="session")
def toy_server(toy_run: Path) -> Iterator[Served]:
    """A server of the run to look at."""
    with serving([toy_run]) as served:
        yield served


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """A real Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}; Debian's package is called chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """What the tabs of a browser did: their errors, and the hosts that they asked."""

    context: "BrowserContext"
    errors: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def tab(self) -> "Tab":
        tab = self.context.new_page()
        tab.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("request", lambda request: self.asked.add(urlsplit(request.url).netloc))
        tab.set_default_timeout(10_000)
        return tab


@pytest.fixture
def watched(browser: "Browser") -> Iterator[Watched]:
    """A browser of one's own. It may ask only servers of this machine, and its console must stay free of errors."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context)
    yield watched
    context.close()
    assert watched.errors == []
    assert all(re.fullmatch(r"(127\.0\.0\.1:\d+)?", host) for host in watched.asked), watched.asked


@pytest.fixture
def enter(watched: Watched) -> "Callable[[Served], Tab]":
    """Return what opens a tab of a server that lets it in."""

    def enter(served: Served) -> "Tab":
        tab = watched.tab()
        tab.goto(served.access.link())
        return tab

    return enter
