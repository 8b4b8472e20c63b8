import json
import math
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from failscape.errors import StorageError, WeightsError
from failscape.storage import (
    atomic_path,
    digest,
    fill_network,
    load_model,
    read_json,
    read_tensors,
    save_model,
    write_bytes,
    write_json,
    write_tensors,
)

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "half": torch.tensor([0.1, -2.0], dtype=torch.float16),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
}


def run_python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


class TestWriting:
    def test_bytes_and_json_read_back(self, tmp_path: Path) -> None:
        write_bytes(tmp_path / "new" / "folder" / "a.bin", b"\x00\x01")
        assert (tmp_path / "new/folder/a.bin").read_bytes() == b"\x00\x01"
        content = {"b": [1, 2.5, None], "a": {"ä": True}}
        write_json(tmp_path / "a.json", content)
        assert read_json(tmp_path / "a.json") == content

    def test_tensors_read_back_bit_for_bit(self, tmp_path: Path) -> None:
        write_tensors(tmp_path / "a.safetensors", TENSORS)
        read = read_tensors(tmp_path / "a.safetensors")
        assert read.keys() == TENSORS.keys()
        assert all(torch.equal(read[k], TENSORS[k]) and read[k].dtype == TENSORS[k].dtype for k in TENSORS)

    def test_tensors_that_share_memory_or_lie_across_it(self, tmp_path: Path) -> None:
        whole = torch.arange(12.0).view(3, 4)
        shared = {"whole": whole, "again": whole, "part": whole[1:], "across": whole.T}
        write_tensors(tmp_path / "a.safetensors", shared)
        read = read_tensors(tmp_path / "a.safetensors")
        assert all(torch.equal(read[k], shared[k]) for k in shared)

    def test_json_refuses_what_json_cannot_say(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"a": 1})
        with pytest.raises(ValueError, match=r"not JSON compliant"):
            write_json(tmp_path / "a.json", {"a": math.nan})
        assert read_json(tmp_path / "a.json") == {"a": 1}

    def test_a_block_that_raises_changes_nothing(self, tmp_path: Path) -> None:
        target = tmp_path / "a"
        target.write_text("before")

        def write_half() -> None:
            with atomic_path(target) as temporary:
                temporary.write_text("after")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_half()
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert target.read_text() == "before"

    def test_a_killed_writer_leaves_the_old_or_the_new_and_never_half(self, tmp_path: Path) -> None:
        # One process forks twenty writers and kills each at another instant: torch is imported once.
        code = (
            "import os, signal, sys, time; from pathlib import Path; from failscape.storage import write_bytes\n"
            "target, size = Path(sys.argv[1]), 3_000_000\n"
            "write_bytes(target, b'0' * size)\n"
            "for kill in range(20):\n"
            "    child = os.fork()\n"
            "    while not child:\n"
            "        for digit in b'123456789': write_bytes(target, bytes([digit]) * size)\n"
            "    time.sleep(0.0037 * kill)\n"
            "    os.kill(child, signal.SIGKILL); os.waitpid(child, 0)\n"
            "    content = target.read_bytes()\n"
            "    print(len(content), len(set(content)), content[:1].decode())\n"
        )
        done = run_python(code, tmp_path / "a.bin")
        contents = [line.split() for line in done.stdout.splitlines()]
        assert len(contents) == 20, done.stderr
        assert all(content[:2] == ["3000000", "1"] for content in contents)
        assert {digit for *_, digit in contents} - {"0"}, "no writer got to write: the kills tell nothing"

    def test_full_disk_keeps_what_was_there(self, tmp_path: Path) -> None:
        # A limit on file size fails a write half way, as a full disk does.
        write_tensors(tmp_path / "a.safetensors", TENSORS)
        before = digest(tmp_path / "a.safetensors")
        code = (
            "import resource, sys, torch; from pathlib import Path; from failscape import storage, errors\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
            "try: storage.write_tensors(Path(sys.argv[1]), {'a': torch.zeros(100_000)})\n"
            "except errors.StorageError as error: print(error)\n"
        )
        done = run_python(code, tmp_path / "a.safetensors")
        assert "File too large" in done.stdout, done.stderr
        assert "untouched" in done.stdout
        assert digest(tmp_path / "a.safetensors") == before
        assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match=r"Expected to write .*File exists.*another folder"):
            write_bytes(tmp_path / "file" / "a", b"")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"a": 1})
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(StorageError, match=r"Permission denied"):
                write_json(tmp_path / "a.json", {"a": 2})
        finally:
            tmp_path.chmod(0o700)
        assert read_json(tmp_path / "a.json") == {"a": 1}

    def test_a_file_system_without_writing(self) -> None:
        with pytest.raises(StorageError, match=r"Expected to write /proc/"):
            write_bytes(Path("/proc/failscape/a"), b"")


class TestJson:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"{", "Expected JSON in"),
            (b"\xff\xfe", "Expected JSON in"),
            (b"[1]", "JSON object .* but got list"),
            (b'{"a":' * 100_000, "Expected JSON in"),
            (b"[" * 1_000_000, "Expected JSON in"),
            (b'{"a": ' + b"9" * 10_000 + b"}", "Expected JSON in"),
        ],
    )
    def test_refuses(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            read_json(tmp_path / "a.json")

    def test_missing_and_enormous(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"readable file .* but got: No such file"):
            read_json(tmp_path / "a.json")
        with (tmp_path / "a.json").open("wb") as file:
            file.truncate(65 * 2**20)
        with pytest.raises(WeightsError, match=r"larger than 64 MiB"):
            read_json(tmp_path / "a.json")


def _entry(dtype: str, shape: list[int], offsets: list[int]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _encoded(header: object) -> bytes:
    return with_header(json.dumps(header).encode(), bytes(64))


HOSTILE = {
    "empty file": b"",
    "shorter than a length": b"\x01\x02",
    "enormous header": struct.pack("<Q", 2**63) + b"{}",
    "header beyond the end": struct.pack("<Q", 1000) + b"{}",
    "header not JSON": with_header(b"not json"),
    "header not UTF-8": with_header(b'{"\xff": 1}'),
    "header a list": _encoded([]),
    "nesting bomb": with_header(b'{"a":' * 100_000),
    "unknown type": _encoded({"a": _entry("F99", [2], [0, 8])}),
    "overlapping offsets": _encoded({"a": _entry("F32", [8], [0, 32]), "b": _entry("F32", [12], [16, 64])}),
    "offsets beyond the end": _encoded({"a": _entry("F32", [32], [0, 128])}),
    "offsets backwards": _encoded({"a": _entry("F32", [2], [8, 0])}),
    "shape that overflows": _encoded({"a": _entry("F32", [2**40, 2**40], [0, 64])}),
    "shape that is not that of the bytes": _encoded({"a": _entry("F32", [3], [0, 64])}),
    "negative shape": _encoded({"a": _entry("F32", [-16], [0, 64])}),
    "hole": _encoded({"a": _entry("F32", [8], [32, 64])}),
}


class Canary:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestTensors:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_refuses(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "a.safetensors").write_bytes(HOSTILE[name])
        with pytest.raises(WeightsError, match=r"Expected intact safetensors in .*a\.safetensors"):
            read_tensors(tmp_path / "a.safetensors")

    def test_refuses_every_truncation(self, tmp_path: Path) -> None:
        whole = safetensors.torch.save(TENSORS)
        for length in range(0, len(whole), 7):
            (tmp_path / "a.safetensors").write_bytes(whole[:length])
            with pytest.raises(WeightsError, match=r"intact safetensors"):
                read_tensors(tmp_path / "a.safetensors")

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_damaged_bytes_are_read_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        content = bytearray(safetensors.torch.save(TENSORS))
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.mktemp("fuzz") / "a.safetensors"
        path.write_bytes(content)
        try:
            assert all(isinstance(tensor, Tensor) for tensor in read_tensors(path).values())
        except WeightsError as error:
            assert str(path) in str(error)  # noqa: PT017

    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".ckpt", ".bin", ".PT"])
    def test_refuses_the_suffix_of_a_pickle(self, tmp_path: Path, suffix: str) -> None:
        with pytest.raises(WeightsError, match=r"may be a pickle and could run code.*save_file"):
            read_tensors(tmp_path / f"a{suffix}")

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
    def test_a_pickle_is_not_run(self, tmp_path: Path, protocol: int, name: str) -> None:
        canary = tmp_path / "canary"
        content = pickle.dumps(Canary(canary), protocol)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=r"pickle" if protocol > 1 else "pickle|intact safetensors"):
            read_tensors(tmp_path / name)
        assert not canary.exists()
        pickle.loads(content)
        assert canary.exists(), "the canary is dead: the test tells nothing"

    @pytest.mark.parametrize("length", [640, 896, 1152, 1408])
    def test_a_header_whose_length_looks_like_a_pickle_is_read(self, tmp_path: Path, length: int) -> None:
        header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(length)
        content = length.to_bytes(8, "little") + header + b"\x07"
        assert content[:1] == pickle.dumps(0)[:1]
        (tmp_path / "a.safetensors").write_bytes(content)
        assert read_tensors(tmp_path / "a.safetensors")["a"].tolist() == [7]

    def test_what_torch_saves_is_not_run(self, tmp_path: Path) -> None:
        torch.save({"a": torch.zeros(2), "b": Canary(tmp_path / "canary")}, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match=r"holds a pickle"):
            read_tensors(tmp_path / "a.safetensors")
        assert not (tmp_path / "canary").exists()

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"No such file"):
            read_tensors(tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match=r"Is a directory"):
            read_tensors(tmp_path)

    def test_a_file_larger_than_memory(self, tmp_path: Path) -> None:
        with (tmp_path / "a.safetensors").open("wb") as file:
            file.truncate(2**34)
        code = (
            "import resource, sys; from pathlib import Path; from failscape import storage, errors\n"
            "resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.RLIM_INFINITY))\n"
            "try: storage.read_tensors(Path(sys.argv[1]))\n"
            "except errors.WeightsError as error: print(error)\n"
        )
        done = run_python(code, tmp_path / "a.safetensors")
        assert done.stdout.startswith("Expected intact safetensors"), done.stderr


class TestModels:
    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        save_model(tmp_path / "model", "classifier", TENSORS, {"width": 4, "names": ["a", "b"]})
        return tmp_path / "model"

    def test_loads_from_folder_and_either_file(self, saved: Path) -> None:
        for source in (saved, saved / "classifier.safetensors", saved / "classifier.json"):
            tensors, description = load_model(source, "classifier")
            assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
            assert description["width"] == 4
            assert description["names"] == ["a", "b"]
        assert json.loads((saved / "classifier.json").read_text())["sha256"] == digest(saved / "classifier.safetensors")

    def test_a_pair_that_does_not_belong_together(self, saved: Path) -> None:
        write_tensors(saved / "classifier.safetensors", {"weight": torch.ones(2, 3)})
        with pytest.raises(WeightsError, match=r"SHA-256.*do not belong together"):
            load_model(saved, "classifier")

    @pytest.mark.parametrize("change", [{"kind": "generator"}, {"format": 2}, {"format": None}, {"kind": ["x"]}])
    def test_another_kind_or_format(self, saved: Path, change: dict[str, Any]) -> None:
        write_json(saved / "classifier.json", read_json(saved / "classifier.json") | change)
        with pytest.raises(WeightsError, match=r"to describe a classifier of format 1, but got kind"):
            load_model(saved, "classifier")

    def test_half_of_a_pair(self, saved: Path, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"Expected a generator saved by failscape .* no file .*generator"):
            load_model(saved, "generator")
        (saved / "classifier.json").unlink()
        with pytest.raises(WeightsError, match=r"readable file .*classifier\.json"):
            load_model(saved, "classifier")
        with pytest.raises(WeightsError, match=r"pickle"):
            load_model(tmp_path / "model.pth", "classifier")


class TestFillNetwork:
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_weights_of_any_precision(self, device: str, dtype: torch.dtype) -> None:
        network = nn.Linear(3, 2, device=device)
        weights = {"weight": torch.arange(6.0).view(2, 3).to(dtype), "bias": torch.tensor([0.5, -2.0], dtype=dtype)}
        fill_network(network, weights, "toy")
        assert torch.equal(network(torch.eye(3)), torch.tensor([[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]]))
        assert network.weight.requires_grad

    def test_keeps_the_layout_that_a_network_asks_for(self) -> None:
        for device in ("cpu", "meta"):
            network = nn.Conv2d(2, 3, 3, device=device).to(memory_format=torch.channels_last)
            weights = {"weight": torch.arange(54.0).view(3, 2, 3, 3), "bias": torch.zeros(3)}
            fill_network(network, weights, "toy")
            assert network.weight.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(network.weight, weights["weight"])

    def test_keeps_the_parameters_of_a_network_in_use(self) -> None:
        network = nn.Linear(3, 2)
        parameter = network.weight
        fill_network(network, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "toy")
        assert network.weight is parameter

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"weight": torch.ones(2, 3)}, "'bias' is missing"),
            ({"weight": torch.ones(2, 3), "bias": torch.ones(3)}, "'bias' is missing, unknown, or of another shape"),
            ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}, "'more'"),
            ({"weight": torch.ones(2, 3), "bias": torch.tensor([0.0, torch.nan])}, "'bias' holds NaN"),
            ({"weight": torch.ones(2, 3), "bias": torch.tensor([0.0, 1e300], dtype=torch.float64)}, "'bias' holds"),
        ],
    )
    def test_refuses(self, weights: dict[str, Tensor], message: str) -> None:
        network = nn.Linear(3, 2)
        before = network.weight.clone()
        with pytest.raises(WeightsError, match=re.escape(message)):
            fill_network(network, weights, "toy")
        assert torch.equal(network.weight, before)
