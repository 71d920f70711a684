"""Textured meshes as GLB, which is y-up and holds sRGB textures."""

from typing import Any

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.evaluation.references import DATA_NODE
from craym_nerfstudio.export.textured import TexturedMesh

Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def glb_bytes(mesh: TexturedMesh, upright: Float[np.ndarray, "3 3"]) -> bytes:
    """A GLB file of one mesh whose vertices keep their coordinates; a node above it turns the scene upright.

    The material is unlit: photos show the light that fell on the scene.

    Args:
        upright: rotation from the frame of the mesh to one whose z axis points up.
    """
    import trimesh
    from PIL import Image
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    material = PBRMaterial(
        name="photos", baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0, roughnessFactor=1.0
    )
    content = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_normals=mesh.normals,
        visual=TextureVisuals(uv=mesh.uv, material=material),
        process=False,
    )
    turn = np.eye(4)
    turn[:3, :3] = Y_UP_FROM_Z_UP @ upright
    scene = trimesh.Scene()
    scene.add_geometry(content, node_name=DATA_NODE, geom_name="surface", transform=turn)
    exported: Any = scene.export(file_type="glb", include_normals=True, tree_postprocessor=_unlit)
    return exported


def _unlit(tree: dict) -> None:
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_materials_unlit"]
    for material in tree["materials"]:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
