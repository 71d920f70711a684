"""Photos or a video without poses: matches, a COLMAP model made of them, and what could not be placed."""
