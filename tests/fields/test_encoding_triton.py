"""Triton kernels: the reference tests in the interpreter, compilation for three GPU generations, and a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from craym_nerfstudio.fields.encoding import GridSpec, HashEncoding

pytest.importorskip("triton", reason="triton is not installed: its wheels exist for Linux only")

FLAGS = {
    "place": {"SIDE": 64, "COARSE": 64, "FINE": 32},
    "forward": {"F": 2, "SMOOTH": False, "JACOBIAN": True},
    "backward": {"F": 2, "SMOOTH": True, "FEATURES": True, "PULLED": True, "TABLE": True, "POINTS": True},
    "pull": {"LEVELS": 16, "F": 2},
    "push": {"LEVELS": 16, "F": 2},
}


def test_reference_tests_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    rooms = Path(__file__).parents[1]
    tests = [str(rooms / "fields" / "test_encoding.py"), str(rooms / "rendering" / "test_sampling.py")]
    command = [sys.executable, "-m", "pytest", *tests, "-k", "triton", "-p", "no:cacheprovider"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0 and "passed" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("kernel", list(FLAGS))
@pytest.mark.parametrize("capability", [75, 80, 90])
def test_compiles_for(capability: int, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter replaces the compiler")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from craym_nerfstudio.fields.encoding import triton_kernels as of_grid
    from craym_nerfstudio.rendering import triton_kernels as of_rays

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = of_rays if kernel == "place" else of_grid
    function = getattr(module, kernel)
    constants = {**FLAGS[kernel], "BLOCK": module.BLOCK}
    types = {"n": "i32", "n_features": "i32", "integers": "*i32", "rays": "i32", "active": "*i8"}
    types |= {"doubt": "fp32", "keep_below": "fp32", "longest": "fp32"}
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    positions = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(function, signature=signature, constexprs=positions, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(compiled.asm["cubin"]) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equals_torch_on_a_gpu() -> None:
    spec = GridSpec(16, 2, 19, 32, 1.3195, "smoothstep")
    torch.manual_seed(0)
    fused = HashEncoding(spec, "triton")
    torch.nn.init.normal_(fused.table)
    reference = HashEncoding(spec, "torch")
    reference.load_state_dict(fused.state_dict())
    x = torch.rand(5000, 3, device="cuda")
    results = []
    for encoding in (fused.cuda(), reference.cuda()):
        points = x.clone().requires_grad_()
        features, pullback = encoding.encode_with_pullback(points)
        pulled = pullback(torch.ones_like(features))
        (features.square().sum() + pulled.square().sum()).backward()
        assert points.grad is not None and encoding.table.grad is not None
        results.append((features, pulled, points.grad, encoding.table.grad))
    for ours, expected in zip(*results, strict=True):
        assert float((ours - expected).norm() / expected.norm()) < 1e-4
