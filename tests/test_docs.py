"""README and docs/: what they name exists, and every command line in them is understood."""

import ast
import inspect
import operator
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import tyro
from nerfstudio.configs.method_configs import method_configs

import craym_nerfstudio
from craym_nerfstudio.cli import main as cli
from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.methods import craym
from tests.test_recipes import METHODS, RECIPES, parsed, words
from tests.test_structure import ORDER

ROOT = Path(__file__).parent.parent
PACKAGE = Path(craym_nerfstudio.__file__).parent
README, OPTIONS, ARCHITECTURE = ROOT / "README.md", ROOT / "docs" / "options.md", ROOT / "docs" / "architecture.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LONGEST_README_LINES = 150

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_RECIPES = re.compile(r"\$\(grep -hv '\^#' ([^)]*)\)")
_PROGRAM = re.compile(r"(craym|ns-[a-z-]+)$")


def spans(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))


def command_lines(text: str) -> Iterator[list[str]]:
    """Words of the commands of `craym` and nerfstudio in blocks and in lines, as the shell makes them."""
    blocks = [content.replace("\\\n", " ") for language, content in _FENCE.findall(text) if not language]
    lines = [*spans(text), *(line for block in blocks for line in block.splitlines())]
    for line in lines:
        for part in line.split("&&"):
            whole = _RECIPES.sub(lambda found: " ".join(recipe_words(found[1])), part)
            try:
                command = shlex.split(whole, comments=True)
            except ValueError:
                continue
            while command and re.fullmatch(r"[A-Z_]+=\S*", command[0]):
                command.pop(0)
            if command and _PROGRAM.fullmatch(Path(command[0]).name):
                yield [Path(command[0]).name, *command[1:]]


def recipe_words(files: str) -> list[str]:
    """Content of recipes that a command line names by path."""
    return words(*(file.removeprefix("configs/").removesuffix(".args") for file in files.split()))


COMMANDS = sorted({tuple(command) for page in PAGES for command in command_lines(page.read_text())})


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_README_LINES


def test_commands_are_found() -> None:
    """The README's first command is among them, and some of every page that has any."""
    first = "ns-train craym-lite --data samples/still_life --viewer.quit-on-train-completion True"
    assert (*first.split(), "craym-data", "--pose-noise", "barf") in COMMANDS
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_is_understood(command: tuple[str, ...]) -> None:
    """Parsed for real where it is ours; a bare name is one that exists."""
    program, *arguments = command
    assert program in {script.name for script in entry_points(group="console_scripts")}
    if program == "craym" and arguments:
        assert arguments[0] in {kind.__metadata__[0].name for kind in get_args(cli.Command)}
        if len(arguments) > 1:
            tyro.cli(cli.Command, args=arguments)  # type: ignore[arg-type]
    if program == "ns-train" and arguments and arguments[-1] != "--help":
        method, *flags = arguments
        assert method in method_configs or method in METHODS
        if method in METHODS:
            parsed(method, flags)


@each_page
def test_flags_exist(page: Path) -> None:
    """Every dotted flag, on the live config of the method."""
    for flag in re.findall(r"--([a-z][\w-]*(?:\.[\w-]+)+)", page.read_text()):
        operator.attrgetter(flag.replace("-", "_"))(craym.config)


@each_page
def test_options_of_the_data_exist(page: Path) -> None:
    """Every option that stands after ``craym-data``."""
    known = set(CraymDataParserConfig.__dataclass_fields__)
    for line in re.findall(r"craym-data((?: +--[^`\n]+)+)", page.read_text()):
        assert {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", line)} <= known


def test_choices_are_those_of_the_config() -> None:
    """The tables of docs/options.md, where a flag has a fixed set of values."""
    rows = re.findall(r"^\| `(?:craym-data )?--([\w.-]+)` \| ([^|]+) \|[^|]+\|$", OPTIONS.read_text(), re.MULTILINE)
    checked = 0
    for flag, choices in rows:
        *path, name = flag.replace("-", "_").split(".")
        owner = operator.attrgetter(".".join(path))(craym.config) if path else CraymDataParserConfig()
        kind = get_type_hints(type(owner)).get(name)
        values = {"True", "False"} if kind is bool else set(get_args(kind)) if get_origin(kind) is Literal else None
        if values is not None:
            assert set(re.findall(r"`([^`]+)`", choices)) == values, flag
            checked += 1
    assert checked > 10


def test_recipes_are_all_described() -> None:
    """Those that are mentioned exist; the table has every one, and says which hold data options."""
    for page in PAGES:
        for name in re.findall(r"(configs/[\w/]+\.args)", page.read_text()):
            assert (ROOT / name).is_file()
    rows = re.findall(r"^\| (`configs/[^|]+) \|[^|]+\| (yes|no) \|$", OPTIONS.read_text(), re.MULTILINE)
    described = {name: answer for names, answer in rows for name in re.findall(r"`([^`]+)`", names)}
    assert set(described) == {recipe.relative_to(ROOT).as_posix() for recipe in RECIPES}
    for name, answer in described.items():
        assert ("craym-data" in recipe_words(name)) == (answer == "yes"), name


@each_page
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_tree_is_that_of_the_package() -> None:
    """Every room, in the order that `test_structure` enforces."""
    tree = ARCHITECTURE.read_text().split("craym_nerfstudio/\n", 1)[1].split("```", 1)[0]
    rooms = re.findall(r"^  ([a-z_]+)(?:/|\.py) ", tree, re.MULTILINE)
    assert [room for room in rooms if room != "__init__"] == ORDER
    for folder in re.findall(r"^([a-z]+)/ ", tree, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_architecture_names_files_and_types_that_exist() -> None:
    text = ARCHITECTURE.read_text()
    for path, new in re.findall(r"`([a-z_]+/[\w./]*|[a-z_]+\.py)`( \(new\))?", text):
        exists = (PACKAGE / path).exists() or (ROOT / path).exists()
        assert exists != bool(new), path
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    types = {name for name in re.findall(r"`([A-Z][a-z]\w*)", text)}
    assert len(types) > 12
    for name in types:
        assert re.search(rf"^class {name}\b", source, re.MULTILINE), name


def test_the_script_of_the_readme_calls_what_exists() -> None:
    """Its imports can be imported, and its calls fit the functions' signatures; the lines are few."""
    script = next(content for language, content in _FENCE.findall(README.read_text()) if language == "python")
    assert len(script.splitlines()) <= 12
    tree, names = ast.parse(script), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {each.name: getattr(import_module(node.module or ""), each.name) for each in node.names}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    ours = [(node, names[node.func.id]) for node in calls if node.func.id in names]  # type: ignore[attr-defined]
    assert len(ours) >= 5
    for node, function in ours:
        keywords = {str(keyword.arg): None for keyword in node.keywords}
        inspect.signature(function).bind(*node.args, **keywords)
