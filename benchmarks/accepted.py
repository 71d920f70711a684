"""What is accepted: small inputs of every kind that people have, read and checked, against what is right for each.

    python -m benchmarks.accepted --cases CASES [--only 31 70] [--markdown docs/accepted.md]

CASES holds scripts that each write one input from the bundled sample: ``python CASE.py FOLDER``.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from craym_nerfstudio.cli.preflight import load_scene
from craym_nerfstudio.console import console
from craym_nerfstudio.data.scene import Scene, detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.cameras import write_cameras
from craym_nerfstudio.export.refined import RefinedCameras
from craym_nerfstudio.preflight.check import check
from craym_nerfstudio.preflight.region import region_of

ROOT = Path(__file__).parents[1]
_LARGE = 200
"""Images beyond which an input is read and not matched."""
_NO_POINTS = 0.99


@dataclass(frozen=True)
class Right:
    """What is right for one input."""

    words: str
    """For the table."""
    images: int | None = None
    """That are read; None for an input that must be refused."""
    said: str = ""
    """Regular expression of what must be said, in the error where it is refused."""
    grades: tuple[str, ...] = ("good",)
    findings: tuple[str, ...] | None = ()
    """Kinds that preflight names; None for any."""
    silent: bool = False
    """Nothing may be said: there is nothing odd about it."""


def refused(said: str, words: str) -> Right:
    """An input that is an error with these words."""
    return Right(f"refused: {words}", None, said)


_POOR = ("repairable", "hopeless")
_PLAIN = Right("read; good", 16, silent=True)

RIGHT: dict[str, Right] = {
    "00": _PLAIN,
    "01": Right("backslashes are read; good", 10, silent=True),
    "02": Right("the files are found; good", 10, silent=True),
    "03": Right("found, and said; good", 10, "10 of 10 images .* under another name"),
    "04": Right("read; good", 10, silent=True),
    "05": Right("255 of 65535 is usable; good", 10, silent=True),
    "07": Right("any value above 0 is usable; good", 10),
    "08": Right(
        "no mask: all usable; the one masked whole is named",
        10,
        "002.png: nothing to match in it",
        ("good", "repairable"),
    ),
    "09": Right("the scale is divided out, and said; good", 16, "one scale, 0.137"),
    "10": Right("map coordinates; good", 24, silent=True),
    "11": Right("the largest model is taken, and named", 16, "sparse/1 with 16 images"),
    "12": Right("read; good", 16),
    "13": Right("read without points; good", 16),
    "14": Right("all 16 images are read; good", 16),
    "16": Right("read; good", 16),
    "17": Right("intrinsics are scaled, and said; good", 16, "intrinsics are scaled"),
    "19": Right("two are left out, and said; good", 16, "2 of 18 images .* missing"),
    "20": refused("Duplicate file name", "named twice"),
    "21": Right("null is absent; good", 16, silent=True),
    "22": refused("2 times|4 times", "the centre beyond the corner, with the factor"),
    "24": Right("the image that is masked whole is named", 12, "005.png: nothing to match", ("good", "repairable")),
    "26": Right("five masks are used, and said; good", 16, "5 of 16 images have a mask"),
    "27": Right("masks that are not used are said; good", 16, "masks beside the images"),
    "28": Right("masks of another key are used; good", 10, silent=True),
    "29": refused("No focal length", "no focal length, and where to write it"),
    "30": Right("what is not used is said; good", 16, "Not used of .*depth_file_path"),
    "31": Right("a frame's own field of view wins; good", 16, silent=True),
    "32": refused("under one set of intrinsics", "two shapes under one set of intrinsics"),
    "33": Right("rotated-images is found", 16, "", ("repairable",), ("rotated-images",)),
    "34": Right("rotated-images is found", 16, "", ("repairable",), ("rotated-images",)),
    "35": Right("what is not used is said; good", 16, "Not used of .*fisheye_crop_radius"),
    "36": refused("panoramas", "panoramas, and how they are cut"),
    "39": Right("read; good", 16),
    "40": Right("read; good", 16),
    "41": Right("rigs are read; good", 16),
    "42": refused("Polycam", "a capture of Polycam, with its converter"),
    "43": refused("Record3D", "a capture of Record3D, with its converter"),
    "44": refused("RealityCapture", "a table of RealityCapture, with its converter"),
    "45": Right("rounded rotations are repaired, and said", 10, "coarsely rounded", ("good", "repairable")),
    "46": Right("the centre that half of them cannot share is named", 12, "", ("repairable",), ("wrong-intrinsics",)),
    "48": Right("read", 14, silent=True),
    "50": Right("vertices of all formats are exact to 0.1 mm", None),
    "51": Right("the copy of the training images is said", 24, "12 of 12 test images"),
    "52": Right("CRLF and blanks in names; good", 12),
    "53b": Right("CRLF; good", 12),
    "54": refused("4 of 16 images have no pose", "all images without a pose are named"),
    "55": refused('"k4"', "coefficients that are not supported"),
    "56": Right("the newer model is read, and said", 12, "binary and a text model"),
    "57": refused("sdfstudio", "a dataset of sdfstudio, with what to write"),
    "58": Right("intrinsics are scaled, and said; good", 10, "intrinsics are scaled"),
    "60": Right("what is written is read back; good", 10, "", ("good", "repairable"), None),
    "63": Right("the ground is covered whole; good", 20),
    "65": Right("1200 frames are read", 1200),
    # Off by up to 2 % by construction.
    "66": Right("its focal lengths, one for each image, are named", 12, "", ("repairable",), ("wrong-focal-lengths",)),
    "67": refused("(?i)heic", "HEIC files that cannot be decoded"),
    "68": Right("LLFF is read; good", 8),
    "70": refused("on or beyond a corner", "the centre on the corner"),
    "71": Right("masks of the same names in their own folders; good", 12, silent=True),
    "73": Right("hopeless: one place; equal poses are said", 10, "10 of 10 images have the pose", ("hopeless",)),
    "74": Right("no baseline within a station: by rotation; good", 24),
    "75": Right("stuck poses are said; not good", 12, "6 of 12 images have the pose", _POOR, None),
    "76": Right("rotations are missing: not good", 10, "", _POOR, None),
}


@dataclass(frozen=True)
class Happened:
    """What became of one input."""

    error: str = ""
    images: int = 0
    said: tuple[str, ...] = ()
    grade: str = "-"
    findings: tuple[str, ...] = ()
    wrong: str = ""
    """What a check of its own found wrong."""
    shown: str = ""

    def differs(self, right: Right) -> list[str]:
        """In what it differs from what is right."""
        found = " ".join([self.error, *self.said])
        off = [self.wrong] if self.wrong else []
        if right.said and not re.search(right.said, found):
            off.append(f'not said: "{right.said}"')
        if right.images is None:
            return off if self.error or not right.said else [*off, "not refused"]
        if self.error:
            return [*off, "refused"]
        off += [f"{self.images} images"] if self.images != right.images else []
        off += [f"graded {self.grade}"] if self.grade not in ("-", *right.grades) else []
        if right.findings is not None and set(self.findings) != set(right.findings):
            off.append(f"findings {', '.join(self.findings) or 'none'}")
        return [*off, "something was said"] if right.silent and self.said else off


def happened(number: str, script: Path, folder: Path) -> Happened:
    """Write one input, read it and check it."""
    made = subprocess.run(
        [sys.executable, str(script), str(folder)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if made.returncode:
        return Happened(wrong=f"the script failed: {made.stderr.strip().splitlines()[-1]}")
    if number == "50":
        errors = [float(value) for value in re.findall(r"max error m: (\S+)", made.stdout)]
        return Happened(wrong="" if max(errors) < 1e-4 else "rounded", shown=f"largest error {max(errors):.1e} m")
    scene, error = None, ""
    with console.capture() as captured:
        try:
            scene = load_scene(folder, 1000)
        except InputError as caught:
            error = _plain(str(caught), folder)
    said = _lines(captured.get(), folder)
    if scene is None:
        return Happened(error=error, said=said)
    images = len(scene.original)
    if images > _LARGE:
        return Happened(images=images, said=said, shown="read, not matched")
    with console.capture():
        checked = check(scene.views, "sift", folder.parent / "cache")
    kinds = tuple(finding.kind for finding in checked.diagnosis.findings)
    wrong, shown = "", f"{checked.verdict.grade}: {checked.verdict.reason}"
    said = (*said, *(f"{each.name}: {', '.join(each.reasons)}" for each in checked.suspicious))
    if number == "60":
        wrong = _not_read_back(scene, folder)
    region = region_of(scene, checked)
    if region is not None:
        shown += f"; the region {region.in_words.split('; it ')[1]}"
        if number == "63" and region.points < _NO_POINTS:
            wrong = f"the region holds {region.points:.0%} of the ground"
    return Happened("", images, said, checked.verdict.grade, kinds, wrong, _plain(shown, folder))


def _not_read_back(scene: Scene, folder: Path) -> str:
    """Whether cameras that are written as COLMAP model and JSON are read again as they were."""
    frames = scene.original
    cameras = RefinedCameras(frames, frames.c2w, np.zeros(len(frames), bool), frames.subset(np.array([], int)))
    output = folder.parent / f"{folder.name}_written"
    with console.capture():
        write_cameras(cameras, output)
        (output / "colmap" / "images").symlink_to(folder.resolve())
        for place in (output, output / "colmap"):
            again = detect_and_read(place)
            same = all(
                np.allclose(getattr(again, name), getattr(frames, name), atol=1e-9)
                for name in ("c2w", "intrinsics_px", "distortion")
            )
            if not same:
                return f"{place.name} is read otherwise than it was written"
    return ""


def _lines(text: str, folder: Path) -> tuple[str, ...]:
    return tuple(_plain(line, folder) for line in text.splitlines() if line.strip())


def _plain(text: str, folder: Path) -> str:
    """Without the folder, which says nothing."""
    return text.replace(f"{folder}/", "").replace(str(folder), "DATA").replace("|", "\\|")


def row(script: Path, result: Happened, right: Right, off: list[str]) -> str:
    """One line of the table."""
    parts = [f"refused: {result.error}" if result.error else f"{result.images} images" if result.images else ""]
    parts += [*result.said, ", ".join(result.findings), result.shown]
    what = "<br>".join(part for part in parts if part)
    return f"| `{script.stem}` | {what} | {right.words} | {'; '.join(off) or 'yes'} |"


_HEAD = """# What is accepted

Small inputs, each of a kind that people have reported trouble with somewhere, made of the bundled sample. What happened
is what reading said and what preflight found (SIFT, 200 px images). Written by `python -m benchmarks.accepted`.

| input | what happened | what is right | as expected |
|---|---|---|---|
"""


def main() -> None:
    """Run the cases and print (or write) the table; exit status 1 when one is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="folder with the scripts")
    parser.add_argument("--work", type=Path, help="folder for the inputs and the cache")
    parser.add_argument("--only", nargs="*", default=[], help="their numbers")
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    args = parser.parse_args()
    rows, wrong = [], 0
    scripts = [path for path in sorted(args.cases.glob("[0-9]*.py")) if not args.only or _number(path) in args.only]
    # One cache for all: many inputs hold the same pictures.
    work = args.work or Path(tempfile.mkdtemp())
    for script in scripts:
        number = _number(script)
        right = RIGHT.get(number, Right("(not known)", 0))
        result = happened(number, script, work / script.stem)
        off = result.differs(right)
        wrong += bool(off)
        rows.append(row(script, result, right, off))
        console.print(rows[-1], highlight=False)
    console.print(f"{len(rows) - wrong} of {len(rows)} as expected")
    if args.markdown is not None:
        args.markdown.write_text(_HEAD + "\n".join(rows) + f"\n\n{len(rows) - wrong} of {len(rows)} are as expected.\n")
    sys.exit(bool(wrong))


def _number(script: Path) -> str:
    return script.stem.split("_")[0]


if __name__ == "__main__":
    main()
