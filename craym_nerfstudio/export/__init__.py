"""A finished run, loaded, and what is handed over of it in the frame and units of its data: cameras, mesh, pictures."""
