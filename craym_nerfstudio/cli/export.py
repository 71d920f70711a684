"""The commands `craym export-mesh` and `craym export-cameras`; what they need is imported when they run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class ExportMeshCommand:
    """Export the surface of a run as a coloured mesh, in the frame and units of its data."""

    load_config: Path
    """config.yml of the run, or the folder that holds it."""
    output: Path | None = None
    """File to write: .ply, .obj or .glb; by default mesh.ply in the folder of the run."""
    resolution: int = 256
    """Samples of the signed distance along each axis of the region."""
    frame: Literal["data", "world"] = "data"
    """Frame of the mesh: that of the data, or nerfstudio's normalised one, in which its own exporters write."""
    keep_components: int = 0
    """Keep this many of the largest connected pieces; 0 keeps every piece with more than 1 % of the faces."""
    visible_only: bool = False
    """Drop surfaces that no training camera sees."""
    preview: bool = True
    """Also write a picture of the mesh from four cameras, beside it."""
    data: Path | None = None
    """Where the data lies, if it has moved since training."""

    def main(self) -> None:
        """Extract, clean, colour, write."""
        from craym_nerfstudio.console import console
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.export.mesh import extract_mesh, write_mesh
        from craym_nerfstudio.export.preview import camera_views, draw_mesh, spread_views
        from craym_nerfstudio.export.run import load_run

        if self.resolution < 8:
            raise InputError(f"resolution is {self.resolution}", None, "Give 8 or more; 256 is usual.")
        run = load_run(self.load_config, self.data)
        model, views = run.pipeline.craym_model, camera_views(run)
        mesh = extract_mesh(model, self.resolution, self.keep_components, views if self.visible_only else None)
        target = self.output or run.folder / "mesh.ply"
        target_from_unit = model.world_from_unit.cpu()
        if self.frame == "data":
            target_from_unit = run.pipeline.data_from_model() @ target_from_unit
        write_mesh(mesh.moved(target_from_unit), target)
        console.print(f"{target}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces")
        if self.preview:
            picture = target.with_suffix(".png")
            draw_mesh(mesh, spread_views(views, 4), picture)
            console.print(str(picture))


@dataclass
class ExportCamerasCommand:
    """Export the refined cameras of a run, in the frame and units of its data, for nerfstudio and COLMAP."""

    load_config: Path
    """config.yml of the run, or the folder that holds it."""
    output: Path | None = None
    """Folder to write to; by default refined_cameras in the folder of the run."""
    paths: Literal["absolute", "relative"] = "absolute"
    """How transforms.json names the images: by absolute paths, or by paths relative to itself."""
    include_test: bool = False
    """Add the test images to transforms.json; they are not refined and keep the poses they were given."""
    data: Path | None = None
    """Where the data lies, if it has moved since training."""

    def main(self) -> None:
        """Align, write, say where."""
        from craym_nerfstudio.console import console
        from craym_nerfstudio.export.cameras import write_cameras
        from craym_nerfstudio.export.refined import cameras_of_run
        from craym_nerfstudio.export.run import load_run

        run = load_run(self.load_config, self.data)
        folder = self.output or run.folder / "refined_cameras"
        figures = write_cameras(cameras_of_run(run), folder, self.paths, self.include_test)
        console.print(describe(folder, figures))


def describe(folder: Path, figures: dict[str, float]) -> str:
    """One sentence about what `write_cameras` has written."""
    text = f"{folder}: {figures['cameras']:.0f} cameras in transforms.json, colmap/sparse/0 and cameras.csv"
    if "mean_reprojection_px" in figures:
        text += (
            f"; {figures['points']:.0f} points in sparse_pc.ply and the COLMAP model, "
            f"{figures['mean_reprojection_px']:.2f} px off in the mean"
        )
    return text
