"""The order of a batch's rays, by hand."""

from craym_nerfstudio.layout import RayLayout


def test_plain_patches_groups() -> None:
    """Five random rays, two patches of 3 x 3, then four key rays with two auxiliaries each."""
    layout = RayLayout(plain=23, patches=2, patch_side_px=3, groups=4, aux=2)
    rays = list(range(layout.plain + layout.grouped))
    assert len(rays) == 35
    assert rays[layout.patch_rays] == list(range(5, 23))
    assert rays[layout.heads] == [23, 26, 29, 32]


def test_plain_rays_alone() -> None:
    layout = RayLayout(7)
    assert layout.grouped == 0 and list(range(7))[layout.heads] == [] and list(range(7))[layout.patch_rays] == []
