"""Small videos for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_clip(path: Path, pictures: list[Image.Image], rotation_deg: float = 0.0) -> Path:
    """A video of these pictures, marked to be shown turned counter-clockwise."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return path
