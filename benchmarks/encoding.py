"""Time the hash encoding beside nerfstudio's torch ``HashEncoding`` in one process.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.encoding --output benchmarks/results/encoding.json

Four amounts of work per implementation, points in ray order, gradients down to the table: ``forward`` (features, no
gradient), ``backward`` (features and their gradient), ``second_order`` (features, their pullback ``J^T g``, an
eikonal-like loss on it, and its gradient) and ``second_order_poses`` (with the gradient by the points too).
nerfstudio's pullback is double autograd; the fused backends need first-order gradients alone. Repetitions of the
implementations alternate, so that a busy machine disturbs all alike; times are medians, ratios are medians of the
ratios.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from nerfstudio.field_components.encodings import HashEncoding as NerfstudioHashEncoding
from torch import Tensor, nn

from benchmarks.harness import command, keep, machine
from craym_nerfstudio.fields.encoding import GridSpec, HashEncoding, choose_backend

STOCK = "nerfstudio_torch"
TORCH_BACKEND_LIMIT = 65536  # points; above, its graph of second derivatives needs many gigabytes
CASES = ((8, 15, 16, 512), (16, 19, 32, 2048))  # levels, log2 table size, coarsest and finest resolution


class Stock(NerfstudioHashEncoding):
    """nerfstudio's encoding with the pullback that a field has to make of it: autograd with a graph."""

    def encode_with_pullback(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Features of x and the map from a gradient by them to one by x."""
        points = x if x.requires_grad else x.detach().requires_grad_()
        features = self(points)
        return features, lambda g: torch.autograd.grad(features, points, g, create_graph=True)[0]


def points_in_ray_order(count: int, seed: int, device: torch.device) -> Tensor:
    """Points of 64 samples per ray through the middle of the unit cube, float32 [count, 3]."""
    generator = torch.Generator().manual_seed(seed)
    rays = count // 64
    middle = 0.5 + 0.3 * (torch.rand(rays, 1, 3, generator=generator) - 0.5)
    directions = nn.functional.normalize(torch.randn(rays, 1, 3, generator=generator), dim=-1)
    samples = middle + directions * torch.linspace(-0.3, 0.3, 64)[None, :, None]
    return samples.reshape(-1, 3).clamp(0.001, 0.999).to(device)


def contestants(count: int, case: tuple[int, int, int, int], device: torch.device) -> dict[str, nn.Module]:
    """nerfstudio's torch encoding first, then every backend that runs on the device."""
    levels, log2_size, coarse, fine = case
    spec = GridSpec(levels, 2, log2_size, coarse, math.exp(math.log(fine / coarse) / (levels - 1)))
    names = dict.fromkeys([choose_backend(device)[0], *(["torch"] if count <= TORCH_BACKEND_LIMIT else [])])
    stock = Stock(levels, coarse, fine, log2_size, 2, implementation="torch")
    return {STOCK: stock.to(device), **{name: HashEncoding(spec, name).to(device) for name in names}}


def works(encoding: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Callable[[], None]]:
    """The amounts of work to time; ``weights`` [features] stands for the MLP behind the encoding."""

    def second_order(points: Tensor) -> None:
        features, pullback = encoding.encode_with_pullback(points)
        gradient = pullback(weights.expand_as(features))
        ((features @ weights).sum() + (gradient.norm(dim=-1) - 1).square().sum()).backward()

    return {
        "forward": torch.no_grad()(lambda: encoding(x)),
        "backward": lambda: (encoding(x) @ weights).sum().backward(),
        "second_order": lambda: second_order(x),
        "second_order_poses": lambda: second_order(x.detach().requires_grad_()),
    }


def time_ms(encoding: nn.Module, work: Callable[[], None], device: torch.device) -> float:
    """Wall-clock milliseconds of one run."""
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    encoding.zero_grad()
    work()
    wait()
    return 1000 * (time.perf_counter() - start)


def compare(case: tuple[int, int, int, int], count: int, runs: int, seed: int, device: torch.device) -> list[dict]:
    """One row per amount of work: medians of every implementation and ratios to nerfstudio's."""
    torch.manual_seed(seed)
    x, weights = points_in_ray_order(count, seed, device), torch.randn(2 * case[0], device=device)
    encodings, rows = contestants(count, case, device), []
    jobs = {name: works(encoding, x, weights) for name, encoding in encodings.items()}
    for work in jobs[STOCK]:
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(1 + runs):
            for name in jobs:
                times[name].append(time_ms(encodings[name], jobs[name][work], device))
        row = {"levels": case[0], "log2_table_size": case[1], "points": count, "work": work}
        times = {name: values[1:] for name, values in times.items()}  # the first run compiles
        row |= {f"{name}_ms": round(statistics.median(values), 2) for name, values in times.items()}
        stock = times.pop(STOCK)
        for name, values in times.items():
            row[f"ratio_{name}"] = round(statistics.median(a / b for a, b in zip(stock, values, strict=True)), 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
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
    given = parser.parse_args()
    device = torch.device(given.device)
    cases = [(case, count) for case in CASES if case[0] in given.levels for count in given.points]
    rows = [row for case, count in cases for row in compare(case, count, given.runs, given.seed, device)]
    about = {"command": command(), "seed": given.seed, "runs": given.runs, "machine": machine(device)}
    keep(given.output, {**about, "rows": rows})


if __name__ == "__main__":
    main()
