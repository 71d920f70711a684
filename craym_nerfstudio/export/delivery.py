"""Everything that a run hands over, part by part, in the frame and units of its data."""

from functools import cached_property
from pathlib import Path

import numpy as np

from craym_nerfstudio.console import console
from craym_nerfstudio.export.cameras import describe, write_cameras
from craym_nerfstudio.export.gltf import WITH_CAMERAS_NAME, glb_bytes, glb_with_cameras
from craym_nerfstudio.export.mesh import SurfaceMesh, appearance, extract_mesh, write_mesh
from craym_nerfstudio.export.options import PARTS, ExportOptions, Part
from craym_nerfstudio.export.photo_views import PhotoView, Visibility, photo_views
from craym_nerfstudio.export.pictures import Ball, before_and_after, draw_surface, write_turntable
from craym_nerfstudio.export.placing import place_points
from craym_nerfstudio.export.ply import write_points, write_splats
from craym_nerfstudio.export.refined import cameras_of_run, rays_of_best_pair
from craym_nerfstudio.export.run import Run
from craym_nerfstudio.export.seen_surface import SeenSurface, seen_surface
from craym_nerfstudio.export.splat_pictures import splat_pictures
from craym_nerfstudio.export.splats import make_splats
from craym_nerfstudio.export.textured import texture_mesh
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.rendering.sphere_tracing import SphereTracer
from craym_nerfstudio.storage import write_atomically

_TOLERANCE_CELLS = 4.0
"""How far behind the first surface a point still counts as seen, in cells of the grid that the mesh comes from."""


class Delivery:
    """Makes the parts; what several of them need is made once."""

    def __init__(self, run: Run, folder: Path, options: ExportOptions) -> None:
        self.run, self.folder, self.options = run, folder, options
        self.model = run.pipeline.craym_model
        self.data_from_unit: Similarity = run.pipeline.data_from_model() @ self.model.world_from_unit.cpu()

    def write(self, parts: tuple[Part, ...]) -> None:
        """Write the chosen parts into the folder, and say what was written.

        Raises:
            InputError: there is no surface, a photo cannot be read or the folder not be written.
        """
        for part in PARTS:
            if part in parts:
                getattr(self, f"_{part}")()

    @cached_property
    def tracer(self) -> SphereTracer:
        """Finds what a ray meets of the mesh: what was dropped from it hides and shows nothing."""
        return self.model.tracer.showing(self.surface.vertices)

    @cached_property
    def views(self) -> list[PhotoView]:
        """The training photos, in the unit frame."""
        return photo_views(cameras_of_run(self.run), self.data_from_unit.inverse())

    def _visibility(self, tracer: SphereTracer) -> Visibility:
        return Visibility(tracer, _TOLERANCE_CELLS * 2.0 / self.options.resolution, self.model.device)

    @cached_property
    def surface(self) -> SurfaceMesh:
        """The whole mesh, in the unit frame."""
        options, visibility = self.options, self._visibility(self.model.tracer)
        return extract_mesh(
            self.model, options.resolution, self.views, visibility, options.unseen, options.keep_components
        )

    @cached_property
    def seen(self) -> SeenSurface:
        """The mesh with fewer faces, and what each photo sees of it."""
        return seen_surface(self.model, self.surface, self.views, self._visibility(self.tracer), self.options.faces)

    @property
    def ball(self) -> Ball:
        """What pictures show."""
        return Ball.around(self.surface.vertices)

    def _mesh(self) -> None:
        formats, mesh = self.options.formats, self.surface.moved(self.data_from_unit)
        for suffix in formats:
            if suffix not in ("glb", "usdz"):
                write_mesh(mesh, self.folder / f"mesh.{suffix}")
                self._said(f"mesh.{suffix}", f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces")
        if {"glb", "usdz"} & set(formats):
            textured = texture_mesh(self.model, self.seen, self.views).moved(self.data_from_unit)
            upright = self.run.scene.world_from_data.rotation.numpy()
            side = len(textured.texture)
            if "glb" in formats:
                content = glb_bytes(textured, upright)
                write_atomically(self.folder / "mesh.glb", lambda file: file.write(content))
                self._said("mesh.glb", f"{len(textured.faces)} faces, texture of {side} x {side} px from the photos")
                cameras = cameras_of_run(self.run)
                rays = np.zeros((0, 2, 3)) if cameras.stage is None else rays_of_best_pair(cameras.stage)
                shown = glb_with_cameras(textured, upright, cameras.given_c2w, cameras.frames.c2w, rays)
                write_atomically(self.folder / WITH_CAMERAS_NAME, lambda file: file.write(shown))
            if "usdz" in formats:
                from craym_nerfstudio.export.usdz import write_usdz

                write_usdz(textured, upright, self.folder / "mesh.usdz")
                self._said("mesh.usdz", f"{len(textured.faces)} faces, the same texture")
        draw_surface(self.tracer, self.ball, self.folder / "mesh.png")
        self._said("mesh.png", "the surface from four sides and from above")

    def _cameras(self) -> None:
        cameras = cameras_of_run(self.run, self.options.include_test)
        figures = write_cameras(cameras, self.folder, self.options.paths, self.options.include_test)
        console.print(describe(self.folder, figures))

    def _splats(self) -> None:
        trained = self.run.scene.frames.subset(self.run.scene.train)
        pictures = splat_pictures(self.model, self.views, trained.size_px)
        splats = make_splats(self.model, self.seen, pictures, self.data_from_unit, self.options.sh_degree)
        write_splats(splats, self.folder / "splats.ply")
        self._said("splats.ply", f"{len(splats.means)} flat Gaussians, harmonics of degree {splats.degree}")

    def _points(self) -> None:
        placed = place_points(self.seen, self.seen.footprint, most=1_000_000, seed=0)
        normals, colors = appearance(self.model, placed.points, self.views)
        data = self.data_from_unit
        write_points(data.points(placed.points), data.directions(normals), colors, self.folder / "points.ply")
        self._said("points.ply", f"{len(placed.points)} points of the surface with normals and colours")

    def _pictures(self) -> None:
        pictures = before_and_after(self.run.pipeline, self.folder / "before_after")
        self._said("before_after", f"{len(pictures)} training views from their given and their refined poses")

    def _video(self) -> None:
        write_turntable(self.tracer, self.ball, self.folder / "turntable.mp4")
        self._said("turntable.mp4", "once around the surface")

    def _said(self, name: str, what: str) -> None:
        console.print(f"{self.folder / name}: {what}")
