"""Points with named columns as binary PLY: oriented points, and splats in the layout of 3D Gaussian Splatting."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Num

from craym_nerfstudio.export.splats import Splats
from craym_nerfstudio.storage import write_atomically

_TYPES = {"f4": "float", "u1": "uchar"}


def write_ply(columns: dict[str, Num[np.ndarray, " n"]], path: Path) -> None:
    """Write columns of one length as properties of vertices: bytes as bytes, all others as floats.

    Raises:
        InputError: the file cannot be written.
    """
    kinds = {name: "u1" if values.dtype == np.uint8 else "f4" for name, values in columns.items()}
    count = len(next(iter(columns.values())))
    rows = np.empty(count, dtype=[(name, f"<{kind}") for name, kind in kinds.items()])
    for name, values in columns.items():
        rows[name] = values
    properties = "".join(f"property {_TYPES[kind]} {name}\n" for name, kind in kinds.items())
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{properties}end_header\n"
    write_atomically(path, lambda file: (file.write(header.encode()), file.write(rows.tobytes())))


def write_points(
    points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], rgb: Float[np.ndarray, "n 3"], path: Path
) -> None:
    """Write points with normals and colours in [0, 1].

    Raises:
        InputError: the file cannot be written.
    """
    bytes_of = np.round(rgb.clip(0.0, 1.0) * 255).astype(np.uint8)
    columns = _named("x y z", points) | _named("nx ny nz", normals) | _named("red green blue", bytes_of)
    write_ply(columns, path)


def write_splats(splats: Splats, path: Path) -> None:
    """Write splats as the paper's code, nerfstudio, gsplat and SuperSplat do: logits, logarithms, channel by channel.

    Raises:
        InputError: the file cannot be written.
    """
    harmonics = splats.harmonics.transpose(0, 2, 1)
    rest = harmonics[:, :, 1:].reshape(len(harmonics), -1)
    columns = _named("x y z", splats.means) | _named("nx ny nz", splats.normals)
    columns |= {f"f_dc_{k}": harmonics[:, k, 0] for k in range(3)}
    columns |= {f"f_rest_{k}": rest[:, k] for k in range(rest.shape[1])}
    columns["opacity"] = np.log(splats.opacities / (1.0 - splats.opacities))
    columns |= {f"scale_{k}": np.log(splats.sigmas[:, k]) for k in range(3)}
    columns |= {f"rot_{k}": splats.quaternions[:, k] for k in range(4)}
    write_ply(columns, path)


def _named(names: str, values: Num[np.ndarray, "n k"]) -> dict[str, Num[np.ndarray, " n"]]:
    return {name: values[:, k] for k, name in enumerate(names.split())}
