"""Pictures of test views."""

import torch

from craym_nerfstudio.evaluation.images import image_panels


def test_depth_picture_spans_the_surface_and_not_the_void() -> None:
    opacity, depth = torch.ones(2, 3, 1), torch.full((2, 3, 1), 1000.0)
    opacity[1] = 0.0
    depth[0, :, 0] = torch.tensor([2.0, 3.0, 4.0])
    outputs = {"rgb": torch.zeros(2, 3, 3), "accumulation": opacity, "depth": depth, "normals": torch.zeros(2, 3, 3)}
    panel = image_panels(outputs, torch.zeros(2, 3, 3))["depth"]
    assert (panel[0, 0] - panel[0, 1]).abs().max() > 0.3 and (panel[0, 1] - panel[0, 2]).abs().max() > 0.3
    torch.testing.assert_close(panel[1], torch.ones(3, 3))
    outputs["accumulation"] = torch.zeros(2, 3, 1)
    assert image_panels(outputs, torch.zeros(2, 3, 3))["depth"].isfinite().all()
