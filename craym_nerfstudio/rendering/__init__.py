"""From rays to pixels: where to sample, NeuS weights, the renderer, and what is special about key rays."""
