"""Count what a training step of `craym` at full size launches on a GPU, and where it waits for it; no GPU is needed.

    python -m benchmarks.device_step --output benchmarks/results/device_step-after.json

The tensors are fake (`benchmarks.fake_device`): the step is the host's, from drawing a batch to the optimizers, but no
number is computed. A launch is an operation that is not a mere view; a few operations launch two or three kernels.
"""

import argparse
import json
from collections import Counter
from copy import deepcopy
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import SceneBox
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.fake_device import Watch, move_module, moved, pretended
from benchmarks.harness import keep
from benchmarks.suite import running_commit
from craym_nerfstudio.cameras.rays import PinholeRays
from craym_nerfstudio.data.datamanager import CraymDataManager
from craym_nerfstudio.data.grey_photos import GreyPhotos
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.data.key_rays import KeyRaySource
from craym_nerfstudio.methods import craym
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.start.landmarks import Landmarks

CAMERAS, SIDE_PX = 5, 32
ROOM = 0.75
"""Share of the sections that there is room for, once some are empty."""
STEPS = (1005, 7005, 12505)
"""While poses wait and levels fade in; while poses move and the kernel anneals; where everything is on. At multiples of
10 the poses would be logged as well."""
PHASES = ("data", "forward", "metrics", "losses", "backward", "optimizers")


def full_size_model(alpha: bool) -> CraymModel:
    """The model of `craym`, on the CPU; its tables are small, which changes no launch."""
    config = deepcopy(craym.config.pipeline.model)
    config.sdf_field.log2_table_size = 10
    box = SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
    metadata = {"has_alpha": alpha, "background_rgb": [1.0, 1.0, 1.0], "image_size_px": torch.tensor([[400, 400]])}
    model: CraymModel = config.setup(scene_box=box, num_train_data=CAMERAS, metadata=metadata, device="cpu")
    c2w = torch.eye(4)[:3].repeat(CAMERAS, 1, 1)
    c2w[:, 2, 3] = 3.0
    model.camera_optimizer.set_poses(c2w, settled=torch.ones(CAMERAS, dtype=torch.bool))
    model.section_room.share = ROOM
    return model.train()


def _landmarks() -> Landmarks:
    """Points on the axes, each seen by the next ray, and a carved surface that is nowhere."""
    points = np.eye(3)
    carved: Any = SimpleNamespace(signed_distance=lambda table: np.zeros(len(table)))
    return Landmarks(points, np.arange(3), 3.0 * points, np.ones(3), carved)


def _data() -> tuple[KeyRaySource, PinholeRays, ImageStore]:
    """One match per pair of neighbours, cameras, and images, on the CPU."""
    pairs = np.array([(k, k + 1) for k in range(CAMERAS - 1)], dtype=np.int32)
    count = len(pairs)
    matches: Any = SimpleNamespace(
        pairs=pairs,
        pair_of_match=np.arange(count),
        keypoints=np.full((count, 2, 2), 0.5 * SIDE_PX),
        bearings=np.zeros((count, 2, 3)),
        confidence=np.ones(count),
    )
    source = KeyRaySource(matches, np.full(CAMERAS, 40.0), np.full((CAMERAS, 2), SIDE_PX))
    pinhole = PinholeRays.__new__(PinholeRays)
    pinhole.rows = torch.zeros(CAMERAS, 16)
    images = torch.zeros(CAMERAS, SIDE_PX, SIDE_PX, 4, dtype=torch.uint8)
    return source, pinhole, ImageStore(images, [(SIDE_PX, SIDE_PX)] * CAMERAS)


def _photos(images: ImageStore) -> GreyPhotos:
    """What patches are compared in, on the CPU."""
    c2w = torch.eye(4)[:3].repeat(CAMERAS, 1, 1)
    cameras = Cameras(c2w, 40.0, 40.0, 0.5 * SIDE_PX, 0.5 * SIDE_PX, SIDE_PX, SIDE_PX)
    return GreyPhotos(images, cameras, torch.zeros(CAMERAS, 8, dtype=torch.long))


def full_size_step(number: int, alpha: bool = True, *, compares: bool = False, recorded: bool = False) -> Watch:
    """One step of `craym` at full size, as the host takes it, on a fake device; not the first, which fills caches.

    A step that `compares` has photos for the consistency loss; one that is `recorded` is scheduled by a clock on the
    device.
    """
    device, model = torch.device("lazy", 0), full_size_model(alpha)
    watch, data, landmarks = Watch(device), _data(), _landmarks()
    photos = _photos(data[-1])
    with pretended(watch):
        move_module(model, device)
        for part in (*data, landmarks, photos):
            vars(part).update(moved(vars(part), device))
        model.landmarks, model.photos = landmarks, photos if compares else None
        source, pinhole, images = data
        config = craym.config.pipeline.datamanager
        manager: Any = SimpleNamespace(config=config, key_source=source, outlines=None, pinhole_rays=pinhole)
        manager._batch = CraymDataManager._batch
        with watch:
            _take_step(model, manager, images, number - 1, watch)
            watch.forget()
            if recorded:
                model.clock = torch.empty((), device=device)
            model.zero_grad()
            _take_step(model, manager, images, number, watch)
    watch.launches += _optimizer_launches(model)
    return watch


def _take_step(model: CraymModel, manager: Any, images: ImageStore, number: int, watch: Watch) -> None:
    """What the host does in a step, but for the optimizers."""
    model.update_to_step(number)
    watch.phase = "data"
    rays, batch = CraymDataManager._training_batch(manager, images, number, torch.Generator())
    watch.phase = "forward"
    outputs = model(rays)
    watch.phase = "metrics"
    metrics = model.get_metrics_dict(outputs, batch)
    watch.phase = "losses"
    loss = reduce(torch.add, model.get_loss_dict(outputs, batch, metrics).values())
    watch.phase = "backward"
    loss.backward()


def _optimizer_launches(model: CraymModel) -> Counter:
    """Of all optimizers; they run on a fake `cuda`, which alone they know to update in one launch."""
    device = torch.device("cuda", 0)
    watch = Watch(device)
    watch.phase = "optimizers"
    with FakeTensorMode(allow_non_fake_inputs=True):
        optimizers = []
        for name, parameters in model.get_param_groups().items():
            trained = [
                torch.nn.Parameter(torch.empty(p.shape, device=device)) for p in parameters if p.grad is not None
            ]
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
            if trained:
                optimizers.append(craym.config.optimizers[name]["optimizer"].setup(params=trained))
        for optimizer in optimizers:  # the first step makes the state
            optimizer.step()
        with watch:
            for optimizer in optimizers:
                optimizer.step()
    return watch.launches


def counted(number: int, alpha: bool, compares: bool = False) -> dict:
    """Launches by phase, and waits."""
    watch = full_size_step(number, alpha, compares=compares)
    return {
        "step": number,
        "compares": compares,
        "background": "color" if alpha else "field",
        "launches": {phase: watch.total(phase) for phase in PHASES},
        "total": watch.total(),
        "waits": {" in ".join(place): count for place, count in watch.waits.most_common()},
        "most": {" ".join(key): count for key, count in watch.launches.most_common(25)},
    }


def main() -> None:
    """Count, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    args = parser.parse_args()
    rows = [counted(number, True) for number in STEPS] + [counted(STEPS[-1], False), counted(STEPS[-1], True, True)]
    content = {"commit": running_commit(), "torch": torch.__version__, "rows": rows}
    keep(args.output, content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
