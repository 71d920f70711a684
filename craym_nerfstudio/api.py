"""Finding poses from a script: read a data set, match its images, adjust its poses, hand them on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from craym_nerfstudio.cameras.selection import select_cameras
from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.scene import Scene, read_scene
from craym_nerfstudio.export.refined import RefinedCameras, cameras_of_stage_zero
from craym_nerfstudio.matching.find import Matcher, find_matches
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.sfm.second_look import adjust_twice


def read_data(data: Path | str, **options: Any) -> Scene:
    """All images of a data set with rough poses; `options` are those of ``craym-data``, such as max_image_size_px.

    Raises:
        InputError: nothing that is accepted lies there, or what lies there cannot be used.
    """
    return read_scene(SceneConfig(Path(data), **{"eval_interval": 0, **options}))


def match(scene: Scene, matcher: Matcher = "auto", cache_dir: Path | str = "outputs/cache") -> Matches:
    """Verified matches between the images; a second call reads them from the cache.

    Raises:
        InputError: the images cannot be read or matched.
    """
    return find_matches(scene.views, matcher, Path(cache_dir))


def adjust(
    scene: Scene, matches: Matches, fixed_cameras: Sequence[str] = (), refine_intrinsics: bool = False
) -> RefinedCameras:
    """Poses adjusted to the matches (stage 0), in the frame and units of the data.

    ``stage`` of the result tells what was decided, how certain every camera is, and the points; `export.cameras` writes
    it. Cameras that names or globs fix keep their poses.

    Raises:
        InputError: a fixed camera is none of the images, or the matches are of others.
    """
    fixed = select_cameras(fixed_cameras, scene.views.names)
    _, stage = adjust_twice(scene.views, matches, fixed=fixed, refine_intrinsics=refine_intrinsics)
    return cameras_of_stage_zero(scene, stage, fixed)
