"""What can be chosen about an export; imports nothing heavy."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from craym_nerfstudio.errors import InputError

Part = Literal["mesh", "cameras", "splats", "points", "pictures", "video"]
PARTS: tuple[Part, ...] = get_args(Part)
Format = Literal["glb", "ply", "obj", "stl", "usdz"]
Unseen = Literal["close", "cut", "keep"]
PathStyle = Literal["absolute", "relative"]
"""How images are named: by absolute paths, or by paths relative to the file that names them."""


_MOST_RESOLUTION = 4096
"""More than the photos can tell, and than a machine can hold."""


@dataclass(frozen=True)
class ExportOptions:
    """How the parts of an export are made."""

    resolution: int = 512
    """Samples of the signed distance along each axis of the region."""
    formats: tuple[Format, ...] = ("glb", "ply")
    """Of the mesh: glb and usdz have a texture from the photos, ply and obj colours at the vertices, stl none."""
    faces: int = 60_000
    """Triangles of the textured mesh, about; 0 keeps all, which takes minutes to unwrap."""
    unseen: Unseen = "close"
    """What no camera sees: close solids and drop hidden pieces, cut all of it, or keep all of it and leave it open."""
    keep_components: int = 0
    """Keep this many of the largest connected pieces; 0 keeps every piece with more than 1 % of the faces."""
    sh_degree: int = 2
    """Degree of the splats' spherical harmonics, 0 to 3: the higher, the fewer splats fit into the file."""
    paths: PathStyle = "absolute"
    """How transforms.json names the images: by absolute paths, or by paths relative to itself."""
    include_test: bool = False
    """Add the test images to transforms.json, their poses refined against the field."""

    def check(self, output: Path | None) -> None:
        """Find out before any work what could not be done in the end.

        Raises:
            InputError: an option that nothing can be made of.
        """
        if output is not None and (output.is_file() or output.suffix.lower().removeprefix(".") in get_args(Format)):
            raise InputError("The output is no folder", output, "Name a folder; --formats says which meshes it gets.")
        if not 8 <= self.resolution <= _MOST_RESOLUTION:
            raise InputError(f"resolution is {self.resolution}", None, f"Give 8 to {_MOST_RESOLUTION}; 512 is usual.")
        for name, value in (("faces", self.faces), ("keep-components", self.keep_components)):
            if value < 0:
                raise InputError(f"{name} is {value}", None, "Give 0 for all of them, or more.")
        if not 0 <= self.sh_degree <= 3:
            raise InputError(f"sh-degree is {self.sh_degree}", None, "Give 0, 1, 2 or 3.")
        if "usdz" in self.formats and find_spec("pxr") is None:
            raise InputError("usdz needs a package that is not installed", None, "pip install usd-core")
