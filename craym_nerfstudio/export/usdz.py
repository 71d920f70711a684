"""Textured meshes as USDZ, for phones; needs the package usd-core."""

import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.export.gltf import Y_UP_FROM_Z_UP
from craym_nerfstudio.export.textured import TexturedMesh
from craym_nerfstudio.storage import write_atomically


def write_usdz(mesh: TexturedMesh, upright: Float[np.ndarray, "3 3"], path: Path) -> None:
    """Write one mesh whose vertices keep their coordinates, y-up as viewers of this format expect.

    Raises:
        InputError: the file cannot be written.
    """
    from PIL import Image
    from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdUtils, Vt

    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(mesh.texture).save(Path(folder) / "photos.png")
        stage = Usd.Stage.CreateNew(str(Path(folder) / "mesh.usdc"))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        root = UsdGeom.Xform.Define(stage, "/scene")
        stage.SetDefaultPrim(root.GetPrim())
        turn = np.eye(4)
        # USD multiplies rows.
        turn[:3, :3] = (Y_UP_FROM_Z_UP @ upright).T
        root.AddTransformOp().Set(Gf.Matrix4d(turn.tolist()))
        shape = UsdGeom.Mesh.Define(stage, "/scene/surface")
        shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(mesh.vertices.astype(np.float32)))
        shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, dtype=np.int32)))
        shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).ravel()))
        shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(mesh.normals.astype(np.float32)))
        shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        places = UsdGeom.PrimvarsAPI(shape).CreatePrimvar(
            "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
        )
        places.Set(Vt.Vec2fArray.FromNumpy(mesh.uv.astype(np.float32)))
        _bind_texture(stage, shape, UsdShade, Sdf)
        stage.GetRootLayer().Save()
        packed = Path(folder) / "mesh.usdz"
        UsdUtils.CreateNewUsdzPackage(str(Path(folder) / "mesh.usdc"), str(packed))
        content = packed.read_bytes()
    write_atomically(path, lambda file: file.write(content))


def _bind_texture(stage, shape, shading, sdf) -> None:
    """A material that shines with the photos' colours: they hold the light already."""
    material = shading.Material.Define(stage, "/scene/photos")
    surface, texture, reader = (
        shading.Shader.Define(stage, f"/scene/photos/{name}") for name in ("surface", "texture", "reader")
    )
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", sdf.ValueTypeNames.Token).Set("st")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", sdf.ValueTypeNames.Asset).Set("photos.png")
    texture.CreateInput("st", sdf.ValueTypeNames.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("diffuseColor", sdf.ValueTypeNames.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("roughness", sdf.ValueTypeNames.Float).Set(1.0)
    surface.CreateInput("emissiveColor", sdf.ValueTypeNames.Color3f).ConnectToSource(texture.ConnectableAPI(), "rgb")
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    shading.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
