"""Compare training steps of a StyleGAN2 in one run: ours, the same networks written as usual, and a package's.

Ours is the real step, `GANTask.step`, without a classifier: generator, discriminator and moving average, logistic loss,
R1 on every 16th step. The others take turns with it, on the same images and threads, each in a process of its own: what
one allocates changes what memory costs another. Ours keeps freed memory, as its training does; the others leave that to
the C library, as their loops do, and the usual form is shown with it, too. Then a profile of our step. Prints the
Markdown for `docs/benchmarks.md`.

Run with `make bench`. On a machine that others use too, `--cpu-time` counts the time that one thread really gets.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from subprocess import CalledProcessError
from typing import Any

import torch
from stylegan2_package import Package
from stylegan2_usual import Order, Usual, draw, score
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from failscape.data import ImageSet
from failscape.generators import StyleGAN2
from failscape.generators.discriminator import ProjectionDiscriminator
from failscape.training import GANSettings
from failscape.training.gan_task import GANTask
from failscape.training.memory import keep_freed_memory

_BATCH = 64
_IMAGES = 512
_PENALTY_EVERY = 16
_RATE, _R1 = 2.5e-3, 0.1

Step = Callable[[Tensor, bool], None]
_OURS, _PACKAGE = "ours", "stylegan2-pytorch 1.9.0"
_USUAL, _KEEPING = "the same networks, usual form", "the same, and freed memory kept as ours"
_SAME_ORDER = "usual form, but enlarging after the convolution as ours"

# What the names of operations, in the order of this table, are counted as.
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "convolutions, backward": ("aten::convolution_backward",),
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::convolution", "aten::_convolution", "aten::conv2d"),
    "products of matrices": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "aten::matmul"),
    "activations": ("aten::leaky_relu",),
    "enlarging": ("aten::upsample",),
    "sums": ("aten::sum", "aten::mean"),
    "copies and conversions": ("aten::copy_", "aten::_to_copy", "aten::to", "aten::clone", "aten::cat", "aten::stack"),
    "optimisers and averages": ("aten::_fused_adam", "Optimizer", "aten::_foreach", "aten::lerp"),
    "other elementwise": (
        "aten::add",
        "aten::mul",
        "aten::sub",
        "aten::div",
        "aten::fill_",
        "aten::pow",
        "aten::zero_",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Which networks are compared.

    Attributes:
        image_shape: `(C, H, W)`.
        channels: at each resolution, the smallest first.
        package: whether the package can build networks of these channels.
    """

    image_shape: tuple[int, int, int]
    channels: tuple[int, ...]
    package: bool = False

    @property
    def name(self) -> str:
        """How the table calls it."""
        return f"{self.image_shape[1]} px, {self.image_shape[0]} × {', '.join(map(str, self.channels))} channels"


_CONTESTS = (
    Contest(image_shape=(1, 28, 28), channels=(96, 48, 24)),
    Contest(image_shape=(3, 32, 32), channels=(32, 32, 32, 32), package=True),
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the table says of a contestant beside its time."""

    penalty_every: int
    parameters: tuple[int, int]
    flops: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One that takes turns with the others, in a process of its own.

    Attributes:
        name: how the table calls it.
        told: what else the table says.
        work: asks for a turn, whether with penalty and of how many steps; gives the seconds of a step.
    """

    name: str
    told: Told
    work: Connection

    def turn(self, steps: int, *, penalty: bool) -> float:
        """Return the seconds that a step takes in the mean."""
        self.work.send((penalty, steps))
        seconds: float = self.work.recv()
        return seconds


class _FlopCounter(TorchDispatchMode):
    """Counts the operations of whatever runs under it, by kind."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[Any] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        if packet in flop_registry:
            self.counts[packet] += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        return result


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="times that all take turns")
    parser.add_argument("--steps", type=int, default=15, help="steps without penalty in each turn")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, and the time that it really gets")
    parser.add_argument("--no-package", action="store_true", help="leave the package out")
    options = parser.parse_args()
    if options.cpu_time:
        torch.set_num_threads(1)
    print(f"Batch {_BATCH}, {torch.get_num_threads()} threads, {'CPU' if options.cpu_time else 'wall'} time.\n")
    for contest in _CONTESTS:
        _compare(contest, options)
    keep_freed_memory()
    _profile(*_task(_CONTESTS[0]), _clock(options.cpu_time))


def _clock(cpu_time: bool) -> Callable[[], float]:
    return time.process_time if cpu_time else time.perf_counter


def _task(contest: Contest) -> tuple[GANTask, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(_IMAGES, *contest.image_shape, generator=torch.Generator().manual_seed(0))
    settings = GANSettings(
        channels=contest.channels, batch=_BATCH, learning_rate=_RATE, r1=_R1, penalty_every=_PENALTY_EVERY,
        encoder_from=1.0,
    )  # fmt: skip
    images = ImageSet.from_tensors(x, torch.arange(_IMAGES) % 10, name="noise")
    return GANTask(settings, images=images), x


def _compare(contest: Contest, options: argparse.Namespace) -> None:
    names = [_OURS, _USUAL, _KEEPING, _SAME_ORDER]
    if contest.package and not options.no_package:
        names.append(_PACKAGE)
    contestants = [found for name in names if (found := _started(name, contest, options.cpu_time)) is not None]
    plain: dict[str, list[float]] = {each.name: [] for each in contestants}
    penalised: dict[str, list[float]] = {each.name: [] for each in contestants}
    for _ in range(options.rounds):
        for each in contestants:
            plain[each.name].append(each.turn(options.steps, penalty=False))
            penalised[each.name].append(each.turn(1, penalty=True))
    for each in contestants:
        each.work.send(None)

    def seconds(each: Contestant, every: int) -> float:
        return (median(plain[each.name]) * (every - 1) + median(penalised[each.name])) / every

    print(f"**{contest.name}**\n")
    print("| step | images a second | time against ours | with the penalty as rare as ours | parameters of G, D | "
          "MFLOP of one pass through G, D |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    first = contestants[0]
    ours = seconds(first, first.told.penalty_every)
    for each in contestants:
        told, took = each.told, seconds(each, each.told.penalty_every)
        print(
            f"| {each.name} | {_BATCH / took:.0f} | {took / ours:.2f} | {seconds(each, _PENALTY_EVERY) / ours:.2f} "
            f"| {told.parameters[0] / 1e6:.2f} M, {told.parameters[1] / 1e6:.2f} M "
            f"| {told.flops[0] / 1e6:.1f}, {told.flops[1] / 1e6:.1f} |"
        )
    print(f"\nA step of ours takes {1000 * ours:.0f} ms, {1000 * median(plain[first.name]):.0f} ms without the "
          f"penalty and {1000 * median(penalised[first.name]):.0f} ms with it.\n")  # fmt: skip


def _started(name: str, contest: Contest, cpu_time: bool) -> Contestant | None:
    """Start a contestant's process; return None, and say why, if it does not run here."""
    context = get_context("spawn")
    work, far = context.Pipe()
    context.Process(target=_take_turns, args=(name, contest, cpu_time, far), daemon=True).start()
    far.close()
    told = work.recv()
    if isinstance(told, str):
        print(f"{name} does not run here: {told}\n")
        return None
    return Contestant(name=name, told=told, work=work)


def _take_turns(name: str, contest: Contest, cpu_time: bool, work: Connection) -> None:
    """Be a contestant: tell about it, then make the steps that are asked for until there are none."""
    if cpu_time:
        torch.set_num_threads(1)
    if name in {_OURS, _KEEPING}:
        keep_freed_memory()
    try:
        step, x, told = _contestant(name, contest)
    except (ImportError, CalledProcessError, OSError) as error:
        work.send(str(error))
        return
    for penalty in (True, False):
        step(x[:_BATCH], penalty)
    work.send(told)
    while (asked := work.recv()) is not None:
        penalty, steps = asked
        work.send(_seconds(step, x, steps, _clock(cpu_time), penalty=penalty))


def _contestant(name: str, contest: Contest) -> tuple[Step, Tensor, Told]:
    task, x = _task(contest)
    if name == _PACKAGE:
        return _package(contest, task, x)
    generator, discriminator = task.networks["generator"], task.networks["discriminator"]
    assert isinstance(generator, StyleGAN2)
    assert isinstance(discriminator, ProjectionDiscriminator)
    drawn = sum(p.numel() for name, p in generator.named_parameters() if not name.startswith("encoder."))
    z, some = generator.sample_latents(8, rng=_rng()), torch.rand(8, *contest.image_shape, generator=_rng())
    noise, rng = generator.draw_noise(8, rng=_rng()), _rng()
    order: Order = "ours" if name == _SAME_ORDER else "usual"
    with torch.no_grad():
        views = discriminator.views(some)
        passes: dict[str, Callable[[], Tensor]] = {
            "draw": lambda: generator.draw(generator.styles(generator.mapping(z)), noise),
            "score": lambda: discriminator(views, None),
        }
        difference = draw(generator, z, noise, "ours") - passes["draw"]()
        assert difference.abs().max() < 1e-4, "the usual form is another function"
        assert (score(discriminator, views) - passes["score"]()).abs().max() < 1e-4, "another function"
        if name != _OURS:
            passes["draw"] = lambda: draw(generator, z, noise, order)
        flops = (_flops(passes["draw"]) / 8, _flops(passes["score"]) / 8)
    told = Told(penalty_every=_PENALTY_EVERY, parameters=(drawn, _count(discriminator)), flops=flops)
    if name != _OURS:
        usual = Usual(generator, discriminator, order=order, rate=_RATE, r1=_R1)
        return lambda x, penalty: usual.step(x, rng, penalty=penalty), x, told

    def ours(x: Tensor, penalty: bool) -> None:
        task._steps = 0 if penalty else 1
        losses = task.step(x, torch.zeros(len(x), dtype=torch.int64), progress=0.0, rng=rng)
        task.average(0.999)
        assert all(float(loss) == float(loss) for loss in losses.values())

    return ours, x, told


def _package(contest: Contest, task: GANTask, x: Tensor) -> tuple[Step, Tensor, Told]:
    generator = task.networks["generator"]
    assert isinstance(generator, StyleGAN2)
    theirs = Package(
        size=contest.image_shape[1],
        channels=contest.channels[0],
        batch=_BATCH,
        style_dim=generator.config["style_dim"],
        style_depth=generator.config["mapping_layers"],
    )
    told = Told(
        penalty_every=theirs.penalty_every,
        parameters=(_count(theirs.generator) + _count(theirs.mapping), _count(theirs.discriminator)),
        flops=(
            _flops(lambda: theirs.draw(8)) / 8,
            _flops(lambda: theirs.discriminator(torch.rand(8, *contest.image_shape))) / 8,
        ),
    )
    return lambda x, penalty: theirs.step(x, penalty=penalty), x, told


def _profile(task: GANTask, x: Tensor, clock: Callable[[], float], steps: int = 15) -> None:
    """Print where the time of a step without penalty goes, and what convolutions reach of the machine's peak."""

    def run() -> None:
        rng = _rng()
        for start in range(steps):
            task._steps = 1
            batch = x[(start * _BATCH) % _IMAGES :][:_BATCH]
            task.step(batch, torch.zeros(_BATCH, dtype=torch.int64), progress=0.0, rng=rng)
            task.average(0.999)

    run()
    with _FlopCounter() as counter:
        run()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    spent: dict[str, float] = {}
    for event in profiled.key_averages():
        group = next((g for g, names in _GROUPS.items() if event.key.startswith(names)), "all else, and overhead")
        spent[group] = spent.get(group, 0.0) + event.self_cpu_time_total / 1e6
    total = sum(spent.values())
    print("| part of a step without penalty | ms | share |\n|---|---|---|")
    for group in sorted(spent, key=lambda g: -spent[g]):
        print(f"| {group} | {1000 * spent[group] / steps:.1f} | {spent[group] / total:.1%} |")

    aten: Any = torch.ops.aten
    counts = counter.counts
    peak = {dtype: _peak(dtype, clock) for dtype in (torch.bfloat16, torch.float32)}
    print(f"\nPeak of this machine, a product of two 2048 × 2048 matrices: {peak[torch.bfloat16]:.0f} GFLOP/s in "
          f"bfloat16, {peak[torch.float32]:.0f} in float32.")  # fmt: skip
    for direction, key, group in (
        ("forward", aten.convolution, "convolutions, forward"),
        ("backward", aten.convolution_backward, "convolutions, backward"),
    ):
        reached = counts[key] / spent[group] / 1e9
        print(f"Convolutions {direction}: {counts[key] / steps / 1e9:.1f} GFLOP a step at {reached:.0f} GFLOP/s, "
              f"{reached / peak[torch.bfloat16]:.0%} of the peak.")  # fmt: skip


def _peak(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Return the best GFLOP/s of a large product of matrices."""
    a, b = torch.rand(2, 2048, 2048).to(dtype)
    a @ b
    best = min(_once(lambda: a @ b, clock) for _ in range(8))
    return 2 * 2048**3 / best / 1e9


def _once(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def _seconds(step: Step, x: Tensor, steps: int, clock: Callable[[], float], *, penalty: bool) -> float:
    """Return the seconds that a step takes in the mean."""
    start = clock()
    for number in range(steps):
        step(x[(number * _BATCH) % _IMAGES :][:_BATCH], penalty)
    return (clock() - start) / steps


def _flops(call: Callable[[], Any]) -> float:
    with _FlopCounter() as counter:
        call()
    return float(sum(counter.counts.values()))


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    main()
