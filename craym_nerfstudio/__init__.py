"""CRAYM for nerfstudio: poses, a signed distance field and colour, optimised together and tied by matched key rays.

What a script needs (the README shows it): `read_data`, `match`, `adjust`, `load_run`.

Conventions, obeyed everywhere in the package:

* There are three frames. *data*: what the files say; everything that is written for the user is in it. *world*:
  nerfstudio's normalised frame, with the poses that training and viewer use. *unit*: the region's sphere is the unit
  sphere; the signed distance field and the losses live here. ``Similarity`` alone converts, and its name says how:
  ``world_from_data``, ``world_from_unit``.
* Camera axes are OpenGL/nerfstudio (x right, y up, z backward); ``c2w`` is a 3x4 camera-to-world matrix.
* Poses are float64 from the files to the end of stage 0; fields, rays and losses are float32.
* An optimised pose is ``c2w_start @ motion`` with a rigid motion in the camera's frame, about the point that lies at
  the scene's distance ahead; rays, viewer, exporters and evaluation all obtain it from one function,
  ``CraymCameraOptimizer.optimised_c2w``.
* Ray directions have unit length and ``depth`` is the Euclidean distance along the ray.
* The SDF is positive outside. Normals point outwards; the output ``normals`` is mapped to [0, 1] as
  the host's exporters demand.
* Keypoints are (x, y) in pixels and the centre of the first pixel is at 0.5; nerfstudio's ray generator wants (y, x).
* A *bearing* is the unit direction of a pixel's ray in its camera's frame, lens distortion removed.
* Schedules are functions of the training step alone, so that a resumed run equals an uninterrupted one.
* Numbers outside of gradients are numpy float64, inside torch; a room converts at its door.
* jaxtyping shape names: ``rays, samples, keys, aux, cams, levels, feat``; ``*b`` stands for any batch shape.
"""

from importlib import import_module
from typing import Any

__version__ = "0.7.0"

_HOMES = {"read_data": "api", "match": "api", "adjust": "api", "load_run": "export.run"}
"""Imported when asked for: a plugin must be light to import."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import_module("craym_nerfstudio.console").silence_others()
        return getattr(import_module(f"craym_nerfstudio.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
