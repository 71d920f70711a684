"""Figures, and nothing but figures: of images and of surfaces."""
