"""Textured meshes as GLB, which is y-up and holds sRGB textures."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.evaluation.references import DATA_NODE
from craym_nerfstudio.export.textured import TexturedMesh
from craym_nerfstudio.stops import load_trimesh

if TYPE_CHECKING:
    from PIL.Image import Image

Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


WITH_CAMERAS_NAME = "mesh_and_cameras.glb"
"""What the report shows."""

_CAMERA_RGB = {"given": (0.9, 0.25, 0.02), "refined": (0.02, 0.2, 0.75)}
_RAY_RGB = (0.02, 0.5, 0.1)
"""Linear, as factors of glTF are."""
_CAMERA_SIZE = 0.035
"""Of a camera's pyramid, as a share of its distance from the middle of the mesh."""
_RAY_WIDTH = 0.04
"""Of a matched ray, as a share of a camera's size."""
_SMALL_TEXTURE = 1024


def glb_bytes(mesh: TexturedMesh, upright: Float[np.ndarray, "3 3"]) -> bytes:
    """A GLB file of one mesh whose vertices keep their coordinates; a node above it turns the scene upright.

    The material is unlit: photos show the light that fell on the scene.

    Args:
        upright: rotation from the frame of the mesh to one whose z axis points up.
    """
    from PIL import Image

    return _exported({"surface": _textured(mesh, Image.fromarray(mesh.texture))}, upright)


def glb_with_cameras(
    mesh: TexturedMesh,
    upright: Float[np.ndarray, "3 3"],
    given_c2w: Float[np.ndarray, "cams 3 4"],
    refined_c2w: Float[np.ndarray, "cams 3 4"],
    rays: Float[np.ndarray, "n 2 3"],
) -> bytes:
    """The same for a page: a small texture, a pyramid for every camera (given orange, refined blue), green rays.

    Args:
        rays: where each starts and ends.
    """
    from PIL import Image

    texture = Image.fromarray(mesh.texture)
    texture.thumbnail((_SMALL_TEXTURE, _SMALL_TEXTURE))
    packed = io.BytesIO()
    texture.save(packed, "JPEG", quality=90)
    middle = 0.5 * (mesh.vertices.min(0) + mesh.vertices.max(0))
    size = _CAMERA_SIZE * float(np.median(np.linalg.norm(refined_c2w[:, :, 3] - middle, axis=-1)))
    parts: dict[str, Any] = {"surface": _textured(mesh, Image.open(packed))}
    for name, poses in (("given", given_c2w), ("refined", refined_c2w)):
        parts[name] = _pyramids(poses, size, _CAMERA_RGB[name])
    if len(rays):
        parts["rays"] = _rods(rays, _RAY_WIDTH * size)
    return _exported(parts, upright)


def _textured(mesh: TexturedMesh, texture: "Image") -> Any:
    trimesh = load_trimesh()
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    material = PBRMaterial(name="photos", baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0)
    visual = TextureVisuals(uv=mesh.uv, material=material)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, visual=visual, process=False)


def _pyramids(c2w: Float[np.ndarray, "cams 3 4"], size: float, rgb: tuple[float, float, float]) -> Any:
    """A pyramid per camera, its tip where the camera stands and its base ahead."""
    corners = size * np.array([[0, 0, 0], [-0.6, -0.45, -1], [0.6, -0.45, -1], [0.6, 0.45, -1], [-0.6, 0.45, -1]])
    sides = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1], [1, 3, 2], [1, 4, 3]])
    return _painted(corners @ c2w[:, :, :3].transpose(0, 2, 1) + c2w[:, None, :, 3], sides, rgb)


def _rods(segments: Float[np.ndarray, "n 2 3"], width: float) -> Any:
    """A prism of three sides along each segment: programs draw lines one pixel wide, which nobody sees."""
    along = segments[:, 1] - segments[:, 0]
    across = np.cross(along, np.eye(3)[np.abs(along).argmin(-1)])
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-12)
    third = np.cross(along, across) / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-12)
    angle = np.array([0.0, 2.0, 4.0]) * np.pi / 3.0
    ring = 0.5 * width * (np.cos(angle)[:, None] * across[:, None] + np.sin(angle)[:, None] * third[:, None])
    corners = np.concatenate([segments[:, :1] + ring, segments[:, 1:] + ring], axis=1)
    sides = np.array([[0, 1, 3], [1, 4, 3], [1, 2, 4], [2, 5, 4], [2, 0, 5], [0, 3, 5]])
    return _painted(corners, sides, _RAY_RGB)


def _painted(
    corners: Float[np.ndarray, "n k 3"], sides: Int[np.ndarray, "m 3"], rgb: tuple[float, float, float]
) -> Any:
    """One small solid at many places, in one colour."""
    trimesh = load_trimesh()
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    count = corners.shape[1]
    faces = sides + count * np.arange(len(corners))[:, None, None]
    material = PBRMaterial(name="marks", baseColorFactor=[*(round(255 * part) for part in rgb), 255])
    visual = TextureVisuals(uv=np.zeros((len(corners) * count, 2)), material=material)
    return trimesh.Trimesh(corners.reshape(-1, 3), faces.reshape(-1, 3), visual=visual, process=False)


def _exported(parts: dict[str, Any], upright: Float[np.ndarray, "3 3"]) -> bytes:
    trimesh = load_trimesh()

    turn = np.eye(4)
    turn[:3, :3] = Y_UP_FROM_Z_UP @ upright
    scene = trimesh.Scene()
    for number, (name, content) in enumerate(parts.items()):
        node = f"{DATA_NODE}_{name}" if number else DATA_NODE
        scene.add_geometry(content, node_name=node, geom_name=name, transform=turn)
    exported: Any = scene.export(file_type="glb", include_normals=True, tree_postprocessor=_unlit)
    return exported


def _unlit(tree: dict) -> None:
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_materials_unlit"]
    for material in tree["materials"]:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
