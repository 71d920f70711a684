"""What nerfstudio's viewer shows beside the picture: cameras and what moved, matched rays, points, mesh, curves."""
