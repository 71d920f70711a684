"""From images to verified matches and tracks; knows rough poses, and neither nerfstudio nor the field."""
