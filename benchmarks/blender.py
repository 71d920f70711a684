"""Blender as a library: materials, solids, lights and photos with their true depth, for `path_traced`."""

import math
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from jaxtyping import Float, UInt16
from mathutils import Vector

from samples.cameras import focal_length_px

Color = tuple[float, float, float]
Triple = tuple[float, float, float]

_SAMPLES = 24
"""Paths per pixel; what noise they leave is taken off by Cycles."""


@dataclass(frozen=True)
class Capture:
    """What a scene is photographed with."""

    photos: int
    size_px: tuple[int, int]
    angle_deg: float
    """Field of view across the longer side."""
    alpha: bool = False

    @property
    def focal_px(self) -> float:
        """Focal length of a camera whose principal point is in the middle."""
        return focal_length_px(self.size_px[0], math.radians(self.angle_deg))


def material(
    kind: str,
    first: Color,
    second: Color = (0.2, 0.2, 0.2),
    scale: float = 8.0,
    rough: float = 0.8,
    metal: float = 0.0,
) -> Any:
    """Plain, or two colours mixed by noise, waves or bricks."""
    made = bpy.data.materials.new(kind)
    made.use_nodes = True
    nodes, link = made.node_tree.nodes, made.node_tree.links.new
    surface = nodes["Principled BSDF"]
    surface.inputs["Roughness"].default_value, surface.inputs["Metallic"].default_value = rough, metal
    if kind == "plain":
        surface.inputs["Base Color"].default_value = (*first, 1)
        return made
    place = nodes.new("ShaderNodeTexCoord")
    if kind == "brick":
        bricks, grain, mix = (nodes.new(f"ShaderNode{name}") for name in ("TexBrick", "TexNoise", "Mix"))
        for name, value in (("Color1", first), ("Color2", second), ("Mortar", (0.6, 0.58, 0.55))):
            bricks.inputs[name].default_value = (*value, 1)
        bricks.inputs["Scale"].default_value, grain.inputs["Scale"].default_value = scale, scale * 10
        grain.inputs["Detail"].default_value = 10
        mix.data_type, mix.blend_type = "RGBA", "MULTIPLY"
        mix.inputs[0].default_value = 0.7
        link(place.outputs["Generated"], bricks.inputs["Vector"])
        link(place.outputs["Object"], grain.inputs["Vector"])
        link(bricks.outputs["Color"], mix.inputs[6])
        link(grain.outputs["Color"], mix.inputs[7])
        link(mix.outputs[2], surface.inputs["Base Color"])
        return made
    pattern = nodes.new("ShaderNodeTexNoise" if kind == "noise" else "ShaderNodeTexWave")
    pattern.inputs["Scale"].default_value = scale
    pattern.inputs["Detail"].default_value = 8 if kind == "noise" else 4
    if kind == "wave":
        pattern.inputs["Distortion"].default_value = 6
    ramp = nodes.new("ShaderNodeValToRGB")
    for element, color, position in zip(ramp.color_ramp.elements, (first, second), (0.35, 0.65), strict=True):
        element.color, element.position = (*color, 1), position
    link(place.outputs["Object"], pattern.inputs["Vector"])
    link(pattern.outputs["Fac" if "Fac" in pattern.outputs else 0], ramp.inputs[0])
    link(ramp.outputs[0], surface.inputs["Base Color"])
    return made


def solid(kind: str, made_of: Any, *, smooth: bool = True, scale: Triple | None = None, **how: Any) -> None:
    """One of Blender's primitives; `monkey` is rounded."""
    getattr(bpy.ops.mesh, f"primitive_{kind}_add")(**how)
    added = bpy.context.object
    added.data.materials.append(made_of)
    if smooth:
        bpy.ops.object.shade_smooth()
    if scale is not None:
        added.scale = scale
    if kind == "monkey":
        added.modifiers.new("rounded", "SUBSURF").levels = 2


def light(place: Triple, power: float, size: float | None = None) -> None:
    """A square of this side that shines at the origin, or a point."""
    lamp = bpy.data.lights.new("light", "POINT" if size is None else "AREA")
    lamp.energy = power
    if size is not None:
        lamp.size = size
    held = bpy.data.objects.new("light", lamp)
    bpy.context.scene.collection.objects.link(held)
    held.location = place
    held.rotation_euler = (-Vector(place)).to_track_quat("-Z", "Y").to_euler()


def sky(color: Color, strength: float) -> None:
    """Light from all sides."""
    node = bpy.context.scene.world.node_tree.nodes["Background"]
    node.inputs[0].default_value, node.inputs[1].default_value = (*color, 1), strength


def prepared(capture: Capture) -> Any:
    """An empty scene that Cycles renders with the capture's camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.device = "CYCLES", "CPU"
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.max_bounces = _SAMPLES, True, 5
    (scene.render.resolution_x, scene.render.resolution_y), scene.render.resolution_percentage = capture.size_px, 100
    scene.view_settings.view_transform = "Standard"
    scene.render.film_transparent = capture.alpha
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA" if capture.alpha else "RGB"
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.camera.data.angle = math.radians(capture.angle_deg)
    scene.collection.objects.link(scene.camera)
    return scene


def true_depth(scene: Any, pose: Float[np.ndarray, "3 4"], capture: Capture) -> UInt16[np.ndarray, "h w"]:
    """Depth along the optical axis at every pixel in thousandths of the unit, 0 where nothing is."""
    width, height = capture.size_px
    across, up = np.meshgrid(np.arange(width) + 0.5 - width / 2, height / 2 - np.arange(height) - 0.5)
    directions = np.stack([across, up, np.full_like(up, -capture.focal_px)], axis=-1) @ pose[:, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    depth, graph, center = np.zeros((height, width)), bpy.context.evaluated_depsgraph_get(), Vector(pose[:, 3])
    for pixel in np.ndindex(height, width):
        hit, place, *_ = scene.ray_cast(graph, center, directions[pixel])
        if hit:
            depth[pixel] = np.array(center - place) @ pose[:, 2]
    return np.round(1000 * depth).astype(np.uint16)
