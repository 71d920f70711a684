"""Matched-ray bundle adjustment (stage 0): matches and rough poses in, cameras and points out."""
