"""Time the hash encoding beside nerfstudio's torch ``HashEncoding`` in one process.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/encoding.py --output benchmarks/results/encoding.json

Three amounts of work per implementation, points in ray order, gradients down to the table: ``forward`` (features, no
gradient), ``backward`` (features and their gradient) and ``second_order`` (features, their derivative by x, an
eikonal-like loss on it, and its gradient). nerfstudio's second order is double autograd; the fused backends return
``J^T g`` and need first-order gradients alone. ``second_order_poses`` asks for the gradient by the points too.
Repetitions of the implementations alternate, so that a busy machine disturbs all alike; times are medians, ratios are
medians of the ratios.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import command, keep, machine
from nerfstudio.field_components.encodings import HashEncoding as NerfstudioHashEncoding
from torch import Tensor, nn

from craym_nerfstudio.fields.encoding import GridSpec, HashEncoding, choose_backend

Encode = Callable[[Tensor], Tensor]
TORCH_BACKEND_LIMIT = 65536  # points; above, its graph of second derivatives needs many gigabytes
CASES = ((8, 15, 16, 512), (16, 19, 32, 2048))  # levels, log2 table size, coarsest and finest resolution


@dataclass
class Contestant:
    """An implementation: its module, and how it gives features with their pullback."""

    module: nn.Module
    encode: Encode
    linearise: Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


def points_in_ray_order(count: int, seed: int, device: torch.device) -> Tensor:
    """Points of 64 samples per ray through the middle of the unit cube, float32 [count, 3]."""
    generator = torch.Generator().manual_seed(seed)
    rays = count // 64
    middle = 0.5 + 0.3 * (torch.rand(rays, 1, 3, generator=generator) - 0.5)
    directions = nn.functional.normalize(torch.randn(rays, 1, 3, generator=generator), dim=-1)
    samples = middle + directions * torch.linspace(-0.3, 0.3, 64)[None, :, None]
    return samples.reshape(-1, 3).clamp(0.001, 0.999).to(device)


def by_autograd(encode: Encode) -> Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Features and pullback by autograd with a graph of the derivative: what a field does without a Jacobian."""

    def linearise(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        points = x if x.requires_grad else x.detach().requires_grad_()
        features = encode(points)
        return features, lambda g: torch.autograd.grad(features, points, g, create_graph=True)[0]

    return linearise


def contestants(
    count: int, levels: int, log2_size: int, coarse: int, fine: int, device: torch.device
) -> dict[str, Contestant]:
    """nerfstudio's torch encoding first, then every backend that runs on the device."""
    stock = NerfstudioHashEncoding(levels, coarse, fine, log2_size, 2, implementation="torch").to(device)
    entries = {"nerfstudio_torch": Contestant(stock, stock, by_autograd(stock))}
    spec = GridSpec(levels, 2, log2_size, coarse, math.exp(math.log(fine / coarse) / (levels - 1)))
    names = [choose_backend(device, "auto")[0]]
    if count <= TORCH_BACKEND_LIMIT:
        names.append("torch")
    for name in dict.fromkeys(names):
        encoding = HashEncoding(spec, name).to(device)
        entries[name] = Contestant(encoding, encoding, encoding.encode_with_pullback)
    return entries


def works(contestant: Contestant, x: Tensor, weights: Tensor) -> dict[str, Callable[[], None]]:
    """The amounts of work to time; ``weights`` [features] stands for the MLP behind the encoding."""

    def forward() -> None:
        with torch.no_grad():
            contestant.encode(x)

    def backward() -> None:
        contestant.module.zero_grad()
        (contestant.encode(x) @ weights).sum().backward()

    def second_order(points: Tensor) -> None:
        contestant.module.zero_grad()
        features, pullback = contestant.linearise(points)
        gradient = pullback(weights.expand_as(features))
        ((features @ weights).sum() + (gradient.norm(dim=-1) - 1).square().sum()).backward()

    return {
        "forward": forward,
        "backward": backward,
        "second_order": lambda: second_order(x),
        "second_order_poses": lambda: second_order(x.detach().requires_grad_()),
    }


def time_ms(work: Callable[[], None], device: torch.device) -> float:
    """Wall-clock milliseconds of one run."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start)


def compare(case: tuple[int, int, int, int], count: int, runs: int, seed: int, device: torch.device) -> list[dict]:
    """One row per amount of work: medians of every implementation and ratios to nerfstudio's."""
    torch.manual_seed(seed)
    x = points_in_ray_order(count, seed, device)
    weights = torch.randn(2 * case[0], device=device)
    jobs = {name: works(c, x, weights) for name, c in contestants(count, *case, device).items()}
    rows = []
    for work in next(iter(jobs.values())):
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for name in jobs:
            jobs[name][work]()
        for _ in range(runs):
            for name in jobs:
                times[name].append(time_ms(jobs[name][work], device))
        ratios = {
            f"ratio_{name}": round(
                statistics.median(a / b for a, b in zip(times["nerfstudio_torch"], t, strict=True)), 2
            )
            for name, t in times.items()
            if name != "nerfstudio_torch"
        }
        medians = {f"{name}_ms": round(statistics.median(t), 2) for name, t in times.items()}
        rows.append({"levels": case[0], "log2_table_size": case[1], "points": count, "work": work, **medians, **ratios})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Run all cases and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--points", type=int, nargs="+", default=[16384, 65536, 262144])
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 16], choices=[case[0] for case in CASES])
    parser.add_argument("--runs", type=int, default=5, help="repetitions; medians are reported")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rows = [
        row
        for case in CASES
        if case[0] in arguments.levels
        for count in arguments.points
        for row in compare(case, count, arguments.runs, arguments.seed, device)
    ]
    result = {
        "command": command(),
        "seed": arguments.seed,
        "runs": arguments.runs,
        "machine": machine(device),
        "rows": rows,
    }
    keep(arguments.output, result)


if __name__ == "__main__":
    main()
