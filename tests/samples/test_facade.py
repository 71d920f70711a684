"""The outdoor sample: photos without alpha, depth in nerfstudio's way, true to the scene's surface."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from samples.make_facade import facade, write


def test_depth_lies_on_the_surface_and_the_sky_has_none(tmp_path: Path) -> None:
    write(tmp_path, count=2, scale=0.1)
    content = json.loads((tmp_path / "transforms.json").read_text())
    scene, shape = facade(), (content["h"], content["w"])
    for frame in content["frames"]:
        photo = np.asarray(Image.open(tmp_path / frame["file_path"]))
        depth = np.asarray(Image.open(tmp_path / frame["depth_file_path"])) * content["depth_unit_scale_factor"]
        assert photo.shape == (*shape, 3) and depth.shape == shape
        y, x = np.nonzero(depth)
        z = depth[y, x]
        x, y = (x + 0.5 - content["cx"]) * z / content["fl_x"], -(y + 0.5 - content["cy"]) * z / content["fl_y"]
        c2w = np.array(frame["transform_matrix"])
        points = np.stack([x, y, -z], axis=-1) @ c2w[:3, :3].T + c2w[:3, 3]
        assert np.abs(scene.sdf(points)).max() < 2e-3
        sky = photo[depth == 0].astype(float)
        assert 0.02 < (depth == 0).mean() < 0.5
        assert sky[:, 2].mean() > sky[:, 0].mean()
        # Ground, fountain and front: depth is no plane.
        assert np.percentile(z, 95) - np.percentile(z, 5) > 3.0
