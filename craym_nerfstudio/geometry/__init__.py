"""Mathematics of cameras and rays: rigid motions, epipolar geometry, pinholes, axes, alignment."""
