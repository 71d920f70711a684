"""What is trained: signed distance, colour and background, on multi-resolution hash grids."""
