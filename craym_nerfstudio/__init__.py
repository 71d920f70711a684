"""CRAYM for nerfstudio: poses, a signed distance field and colour, optimised together and tied by matched key rays.

Conventions, obeyed everywhere in the package:

* Camera axes are OpenGL/nerfstudio (x right, y up, z backward); ``c2w`` is a 3x4 camera-to-world matrix.
* An optimised pose is ``c2w_start @ exp(xi)`` with ``xi = [translation, rotation]`` in the camera frame
  (turning about the scene ahead or the camera itself, as configured); rays, viewer, exporters and evaluation all
  obtain it from one function, ``CraymCameraOptimizer.optimised_c2w``.
* Ray directions have unit length and ``depth`` is the Euclidean distance along the ray.
* The SDF is positive outside. Normals point outwards; the output ``normals`` is mapped to [0, 1] as
  the host's exporters demand.
* Keypoints are (x, y) in pixels and the centre of the first pixel is at 0.5; nerfstudio's ray generator wants (y, x).
* A *bearing* is the unit direction of a pixel's ray in its camera's frame, lens distortion removed.
* Schedules are functions of the training step alone, so that a resumed run equals an uninterrupted one.
* jaxtyping shape names: ``rays, samples, keys, aux, cams, levels, feat``; ``*b`` stands for any batch shape.
"""

__version__ = "0.1.0"
