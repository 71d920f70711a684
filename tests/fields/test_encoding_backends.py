"""The encoding's backends: which is chosen, what imports cost, processes and threads, tiny-cuda-nn by a stand-in."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import craym_nerfstudio
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.fields.encoding import GridSpec, HashEncoding, choose_backend, interface
from craym_nerfstudio.fields.encoding.grid import Grid
from craym_nerfstudio.fields.encoding.torch_backend import TorchBackend
from craym_nerfstudio.kernels import loader as kernels

SPEC = GridSpec(4, 2, 8, 4, 1.7)


def installed(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Pretend that exactly these optional modules are installed."""
    for module in (interface, kernels):
        monkeypatch.setattr(module, "importable", lambda name: name in modules)


@pytest.mark.parametrize(
    ("device", "modules", "expected"),
    [
        ("cpu", ("numba", "triton"), "cpu"),
        ("cpu", (), "torch"),
        ("cuda", ("triton", "tinycudann"), "triton"),
        ("cuda", ("tinycudann",), "tcnn"),
        ("cuda", ("numba",), "torch"),
        ("mps", ("numba", "triton"), "torch"),
    ],
)
def test_auto_takes_the_best_there_is(
    monkeypatch: pytest.MonkeyPatch, device: str, modules: tuple[str, ...], expected: str
) -> None:
    installed(monkeypatch, *modules)
    name, reason = choose_backend(device)
    assert name == expected and reason


@pytest.mark.parametrize("lacking", ["a C compiler", "Python's headers"])
def test_a_triton_that_could_not_build_its_launcher_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], lacking: str
) -> None:
    """It would die in the first step; what it lacks is said in one line, with the command that helps."""
    installed(monkeypatch, "triton")
    monkeypatch.delenv("CC", raising=False)
    compiler = None if "compiler" in lacking else "/usr/bin/gcc"
    monkeypatch.setattr(kernels.shutil, "which", lambda _: compiler)
    (tmp_path / "Python.h").touch()
    headers = tmp_path if "compiler" in lacking else tmp_path / "nowhere"
    monkeypatch.setattr(kernels.sysconfig, "get_paths", lambda: {"include": str(headers)})
    name, reason = choose_backend("cuda")
    assert name == "torch" and lacking in reason and "apt-get install" in reason
    with pytest.raises(InputError, match=rf"{lacking}.*encoding auto"):
        choose_backend("cuda", "triton")
    interface._announce.cache_clear()
    interface._announce(name, reason)
    assert capsys.readouterr().out == f"Hash grid: torch - {reason}\n"


def test_what_cannot_run_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "numba", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError, match=r"tinycudann.*encoding auto"):
        choose_backend("cuda", "tcnn")
    with pytest.raises(InputError, match="'triton' cannot run on the device 'cpu'"):
        choose_backend("cpu", "triton")
    with pytest.raises(InputError, match="'cpu' cannot run on the device 'cuda'"):
        choose_backend("cuda", "cpu")
    assert choose_backend("cuda", "torch") == ("torch", "as requested")


def test_importing_loads_no_compiler() -> None:
    code = (
        "import sys, craym_nerfstudio.fields.encoding as e; e.HashEncoding(e.GridSpec(2, 2, 8, 4));"
        "print([m for m in ('numba', 'triton', 'tinycudann') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_auto_tells_once_per_process_what_it_took_and_why() -> None:
    code = (
        "import torch, craym_nerfstudio.fields.encoding as e\n"
        "for choice in ('auto', 'auto', 'torch'): e.HashEncoding(e.GridSpec(2, 2, 8, 4), choice)(torch.rand(5, 3))"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    told = [line for line in result.stdout.splitlines() if "compiling" not in line]
    assert told == ["Hash grid: cpu (numba kernel) - no CUDA device"]


def test_without_a_writable_cache(tmp_path: Path) -> None:
    package = Path(craym_nerfstudio.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "craym_nerfstudio", ignore=ignored)
    blocked = tmp_path / "craym_nerfstudio" / "fields" / "encoding" / "__pycache__"
    blocked.write_text("a file where a directory is wanted: even root cannot write below it")
    (tmp_path / "temporary").mkdir()
    code = (
        "import numpy as np\n"
        "from craym_nerfstudio.fields.encoding import cpu_backend\n"
        "kernels = cpu_backend.load_kernels()\n"
        "kernels.push(0, 0, np.empty((0, 2, 3, 128), 'f4'), np.empty((3, 0), 'f4'), np.empty((0, 2), 'f4'))\n"
        "hits = sum(kernels.push.stats.cache_hits.values())\n"
        "print(cpu_backend.__file__, kernels.push.stats.cache_path, hits, sep='\\n')"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(tmp_path)}
    environment |= {"XDG_CACHE_HOME": str(blocked), "HOME": str(blocked)}
    environment.pop("NUMBA_CACHE_DIR", None)
    for run, announced in enumerate((True, False)):
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        module, cache, hits = result.stdout.splitlines()[-3:]
        assert module.startswith(str(tmp_path)) and cache.startswith(str(tmp_path / "temporary"))
        assert ("compiling the CPU kernels" in result.stdout) is announced
        assert int(hits) == run


def test_the_fallback_cache_of_somebody_else_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = kernels.fallback_cache()
    assert kernels.fallback_cache() == own and own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    assert kernels.fallback_cache() != own
    own.rmdir()
    own.symlink_to(tmp_path)
    assert kernels.fallback_cache() != own


def _encode_in_child(queue: multiprocessing.Queue, encoding: HashEncoding, x: Tensor) -> None:
    torch.set_num_threads(2)
    with torch.no_grad():
        queue.put(float(encoding(x).numpy().sum()))  # torch's own threads do not survive a fork


def test_forked_children_can_encode() -> None:
    encoding, x = HashEncoding(SPEC, "cpu"), torch.rand(10_000, 3)
    with torch.no_grad():
        expected = float(encoding(x).numpy().sum())  # starts this process's threads
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_encode_in_child, args=(queue, encoding, x))
    child.start()
    assert queue.get(timeout=60) == pytest.approx(expected, rel=1e-4)
    child.join(timeout=10)
    assert child.exitcode == 0


def test_threads_can_encode_at_once() -> None:
    encoding, x = HashEncoding(SPEC, "cpu"), torch.rand(10_000, 3)
    results: list[Tensor] = []

    def work() -> None:
        for _ in range(5):
            with torch.no_grad():
                results.append(encoding(x))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 15 and all(torch.equal(result, results[0]) for result in results)


class StandInEncoding(nn.Module):
    """The contract of ``tinycudann.Encoding`` that we rely on: flat ``params`` in our layout, x in the cube."""

    def __init__(self, n_input_dims: int, encoding_config: dict) -> None:
        super().__init__()
        assert n_input_dims == 3 and encoding_config["otype"] == "HashGrid"
        self.spec = GridSpec(
            encoding_config["n_levels"],
            encoding_config["n_features_per_level"],
            encoding_config["log2_hashmap_size"],
            encoding_config["base_resolution"],
            encoding_config["per_level_scale"],
            encoding_config["interpolation"].lower(),
        )
        self.params = nn.Parameter(torch.zeros(self.spec.n_params))

    def forward(self, x: Tensor) -> Tensor:
        assert x.min() >= 0 and x.max() <= 1
        table = self.params.view(self.spec.n_entries, self.spec.features_per_level)
        return TorchBackend().encode(x, Grid(self.spec, table, (1.0,) * self.spec.levels))


@pytest.fixture
def stand_in_tinycudann(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in where ``import tinycudann`` finds it, and let CPU tensors use it."""
    module = ModuleType("tinycudann")
    module.Encoding = StandInEncoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    monkeypatch.setattr(interface, "choose_backend", lambda device, requested: (requested, ""))


@pytest.mark.usefixtures("stand_in_tinycudann")
def test_tcnn_computes_from_our_table() -> None:
    mask = [1.0, 0.5, 0.0, 1.0]
    tcnn, reference = HashEncoding(SPEC, "tcnn"), HashEncoding(SPEC, "torch")
    reference.load_state_dict(tcnn.state_dict())
    x = torch.rand(20, 3) * 1.2 - 0.1
    results = []
    for encoding in (tcnn, reference):
        points = x.clone().requires_grad_()
        features, pullback = encoding.encode_with_pullback(points, mask)
        pulled = pullback((100 * features).cos())
        loss = features.sum() + (pulled.norm(dim=-1) - 1).square().sum()
        loss.backward()
        results.append((features, pulled, points.grad, encoding.table.grad))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.usefixtures("stand_in_tinycudann")
def test_another_layout_of_tcnn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def widened(self: StandInEncoding, n_input_dims: int, encoding_config: dict) -> None:
        nn.Module.__init__(self)
        self.params = nn.Parameter(torch.zeros(7))

    monkeypatch.setattr(StandInEncoding, "__init__", widened)
    with pytest.raises(InputError, match="7 numbers"):
        HashEncoding(GridSpec(3, 2, 8, 4, 1.7), "tcnn")(torch.rand(2, 3))  # a grid that no other test has built
