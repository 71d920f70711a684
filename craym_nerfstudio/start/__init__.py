"""The seam between finding poses and training: where training starts from, and the region it fills."""
