"""Analytic scenes and their ray tracer: the one import of tests and of the script that makes ``samples/still_life``.

>>> from samples.analytic_scene import tiny_scene, write_blender_scene
>>> cameras = write_blender_scene(folder, tiny_scene(), train_count=12, test_count=2, size_px=48)
"""

from samples.cameras import CAMERA_ANGLE_X, dome_cameras, focal_length_px, look_at
from samples.export import (
    WrittenScene,
    extract_mesh,
    project_to_surface,
    sample_mesh,
    split_cameras,
    visible_surface_points,
    write_blender_scene,
    write_ply,
    write_split,
)
from samples.render import camera_rays, render, render_geometry, trace
from samples.scene import Scene, Solid, rotation_about, tiny_scene
from samples.still_life_solids import still_life

__all__ = [
    "CAMERA_ANGLE_X",
    "Scene",
    "Solid",
    "WrittenScene",
    "camera_rays",
    "dome_cameras",
    "extract_mesh",
    "focal_length_px",
    "look_at",
    "project_to_surface",
    "render",
    "render_geometry",
    "rotation_about",
    "sample_mesh",
    "split_cameras",
    "still_life",
    "tiny_scene",
    "trace",
    "visible_surface_points",
    "write_blender_scene",
    "write_ply",
    "write_split",
]
