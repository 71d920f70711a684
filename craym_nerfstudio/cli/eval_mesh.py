"""The command `craym eval-mesh`; what it needs is imported when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from craym_nerfstudio.geometry.alignment import Similarity


@dataclass
class EvalMeshCommand:
    """Compare a mesh with a reference surface; prints a table and writes JSON."""

    mesh: Path
    """Mesh to judge; with --load-config one that `craym export` wrote."""
    reference: Path
    """A mesh, an .npz of points, or a folder: exact mesh and visible points, depth maps, or sparse points."""
    load_config: Path | None = None
    """config.yml of the mesh's run, or its folder: the mesh is moved by the similarity between its refined cameras and
    the true ones. Without it the mesh must be in the frame of the reference."""
    reference_poses: Path | None = None
    """True poses in the frame of the reference surface, by default those that the run knows."""
    output: Path | None = None
    """JSON file to write; by default beside the mesh, as surface.json."""
    samples: int = 200_000
    """Points drawn on the mesh."""
    seed: int = 0
    """Seed of the draw."""
    data: Path | None = None
    """Where the data of the run lies, if it has moved since training."""

    def main(self) -> None:
        """Align, compare, report."""
        from craym_nerfstudio.console import console
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.evaluation.references import load_mesh, load_reference
        from craym_nerfstudio.evaluation.surfaces import compare_surfaces, sample_mesh
        from craym_nerfstudio.storage import write_json

        if self.samples < 1:
            raise InputError(f"samples is {self.samples}", remedy="Give 1 or more; 200000 is usual.")
        vertices, faces = load_mesh(self.mesh)
        reference = load_reference(self.reference)
        if self.load_config is not None:
            vertices = self._similarity(self.load_config).points(vertices)
        comparison = compare_surfaces(sample_mesh(vertices, faces, self.samples, self.seed), reference)
        metrics = comparison.metrics()
        content = {
            "mesh": str(self.mesh),
            "reference": str(self.reference),
            "kind": reference.kind,
            "clipping": f"{reference.left_out} Distances are not clipped.",
            "aligned_by": "as given" if self.load_config is None else "cameras",
            "samples": self.samples,
            "reference_points": len(reference.visible.points),
            "seed": self.seed,
            "results": metrics,
        }
        target = self.output or self.mesh.with_name("surface.json")
        write_json(target, content)
        console.print(_table(content))
        console.print(f"{content['clipping']}\nWritten to {target}")

    def _similarity(self, run_path: Path) -> "Similarity":
        """From the frame of the run's data to that of the reference, by cameras alone."""
        import torch

        from craym_nerfstudio.data.reference import read_reference
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.export.run import load_run
        from craym_nerfstudio.geometry.alignment import align_poses

        run = load_run(run_path, self.data)
        manager = run.pipeline.datamanager
        reference = manager.reference
        if self.reference_poses is not None:
            reference = read_reference(self.reference_poses, manager.train_dataset.metadata["image_names"], [])
        if reference is None:
            remedy = "Give them with --reference-poses; for poses that were exact, that is the run's own data."
            raise InputError("The run knows no true poses", run_path, remedy)
        refined = run.pipeline.data_from_model().poses(run.pipeline.refined_c2w().double())
        return align_poses(refined, torch.from_numpy(reference.train_c2w), robust=True)


_LABELS = {
    "chamfer": "Chamfer (mean of both ways)",
    "accuracy": "accuracy (mesh to reference)",
    "completeness": "completeness (reference to mesh)",
    "hausdorff": "Hausdorff",
    "hausdorff_95": "Hausdorff, 95 % quantile",
    "distance_95": "distance, 95 % quantile",
    "distance_max": "distance, largest",
    "normal_consistency": "normal consistency",
}


def _table(content: dict[str, Any]) -> Table:
    table, metrics = Table(title=f"Surface against {content['kind']}", show_header=False), content["results"]
    for name, label in _LABELS.items():
        if name in metrics:
            table.add_row(label, f"{metrics[name]:.4f}")
    for name in metrics:
        kind, _, threshold = name.rpartition("_")
        if kind in ("precision", "recall", "f_score"):
            table.add_row(f"{kind.replace('f_score', 'F')} at {threshold}", f"{100 * metrics[name]:.1f} %")
    if "left_out_share" in metrics:
        table.add_row("area of the mesh left out", f"{100 * metrics['left_out_share']:.1f} %")
    return table
