"""The layers of the viewer's scene: named groups of nodes that are replaced and switched as one."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras
from viser import SceneApi

from craym_nerfstudio.stops import load_trimesh
from craym_nerfstudio.viewer.layers import SCENE_SCALE, ViserPose, in_scene


class SceneLayers:
    """Draws numbers of the world into viser's scene."""

    def __init__(self, scene: SceneApi) -> None:
        self._scene = scene
        self._nodes: dict[str, dict[str, Any]] = {}
        self._visible: dict[str, bool] = {}

    def show(self, layer: str, visible: bool) -> None:
        """Switch a layer, now and whenever it is drawn again."""
        self._visible[layer] = visible
        for node in self._nodes.get(layer, {}).values():
            node.visible = visible

    def cameras(
        self,
        layer: str,
        cameras: Cameras,
        poses: Float[np.ndarray, "n 3 4"],
        colors: UInt8[np.ndarray, "n 3"],
        size: float,
    ) -> None:
        """Frusta of cameras at these poses, `size` long."""
        nodes = {}
        for number, c2w in enumerate(poses):
            pose, name = ViserPose.of(c2w), f"/craym/{layer}/{number:05d}"
            height, width = float(cameras.height[number]), float(cameras.width[number])
            fov = 2.0 * float(np.arctan(0.5 * height / float(cameras.fy[number])))
            nodes[name] = self._scene.add_camera_frustum(
                name, fov, width / height, size * SCENE_SCALE, _rgb(colors[number]),
                wxyz=pose.wxyz, position=pose.position,
            )  # fmt: skip
        self._replace(layer, nodes)

    def lines(
        self, layer: str, ends: Float[np.ndarray, "n 2 3"], colors: UInt8[np.ndarray, "n 3"], width_px: float
    ) -> None:
        """Straight lines."""
        nodes = {}
        for number, (line, color) in enumerate(zip(in_scene(ends), colors, strict=True)):
            name = f"/craym/{layer}/{number:05d}"
            nodes[name] = self._scene.add_spline_catmull_rom(
                name, line, line_width=width_px, segments=1, color=_rgb(color)
            )
        self._replace(layer, nodes)

    def points(
        self, layer: str, points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"], size: float
    ) -> None:
        """A point cloud."""
        name = f"/craym/{layer}/points"
        shown = in_scene(points).astype(np.float32)
        self._replace(layer, {name: self._scene.add_point_cloud(name, shown, colors, size * SCENE_SCALE)})

    def mesh(
        self,
        layer: str,
        vertices: Float[np.ndarray, "n 3"],
        faces: Int[np.ndarray, "m 3"],
        colors: UInt8[np.ndarray, "n 3"],
    ) -> None:
        """A mesh with colours at its vertices."""
        trimesh = load_trimesh()

        name = f"/craym/{layer}/mesh"
        content = trimesh.Trimesh(in_scene(vertices), faces, vertex_colors=colors, process=False)
        self._replace(layer, {name: self._scene.add_mesh_trimesh(name, content)})

    def _replace(self, layer: str, nodes: dict[str, Any]) -> None:
        """These are the layer from now on; a node of the same name has replaced its predecessor already."""
        for name, old in self._nodes.get(layer, {}).items():
            if name not in nodes:
                old.remove()
        self._nodes[layer] = nodes
        self.show(layer, self._visible.get(layer, True))


def _rgb(color: UInt8[np.ndarray, "3"]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in color)
    return red, green, blue
