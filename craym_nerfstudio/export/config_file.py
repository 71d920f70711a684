"""The config.yml of a run, read without running what it says: known classes alone, whoever wrote it.

The host writes its configs as YAML that names Python objects and reads them with a loader that calls whatever is named.
A file from a stranger could call anything; here it can only fill settings of the host and of this package.
"""

import importlib
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from nerfstudio.data.utils.nerfstudio_collate import nerfstudio_collate
from nerfstudio.engine.trainer import TrainerConfig

from craym_nerfstudio.errors import OTHER_VERSION, InputError

_PACKAGES = ("craym_nerfstudio", "nerfstudio", "torch.optim")
"""Whose classes a config may name."""
_FUNCTIONS = {"nerfstudio.data.utils.nerfstudio_collate.nerfstudio_collate": nerfstudio_collate}
"""The one setting of the host that is a function."""
_PATHS = ("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath")


class _Refused(yaml.constructor.ConstructorError):
    """The file names what no config consists of."""


class _Moved(yaml.constructor.ConstructorError):
    """The file names a class that this version does not have."""


class _KnownClasses(yaml.SafeLoader):
    """Plain YAML, tuples, paths, and of some packages: classes by name, enums, dataclasses filled with settings."""


def load_config(path: Path) -> TrainerConfig:
    """The config of a run, as ns-train wrote it.

    Raises:
        InputError: it is missing, no such file, or names anything that is not a setting.
    """
    remedy = "Give the config.yml that ns-train wrote, or the folder that holds it."
    if not path.is_file():
        raise InputError("No such run", path, remedy)
    try:
        config = yaml.load(path.read_text(), Loader=_KnownClasses)
    except _Moved as error:
        raise InputError(f"Written by another version ({error.problem})", path, OTHER_VERSION) from error
    except _Refused as error:
        reason = f"This config names {error.problem}, which no run of craym does: nothing of it was executed"
        raise InputError(reason, path, "Ask whoever gave it to you, or train again.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError("Not a config of ns-train", path, remedy) from error
    if not isinstance(config, TrainerConfig):
        raise InputError("Not a config of ns-train", path, remedy)
    return config


def _known_class(name: str, node: yaml.Node) -> type:
    """The class of that name, which must be at home in one of the packages."""
    module_name, _, class_name = name.rpartition(".")
    if not _is_ours(module_name):
        raise _Refused(None, None, name, node.start_mark)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise _Moved(None, None, f"no {name}", node.start_mark) from error
    # What a module of ours imports from elsewhere is not ours.
    if not isinstance(found, type) or not _is_ours(found.__module__):
        raise _Refused(None, None, name, node.start_mark)
    return found


def _is_ours(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in _PACKAGES)


def _name(loader: _KnownClasses, suffix: str, node: yaml.Node) -> Any:
    return _FUNCTIONS[suffix] if suffix in _FUNCTIONS else _known_class(suffix, node)


def _object(loader: _KnownClasses, suffix: str, node: yaml.Node) -> Any:
    """A dataclass with its settings, made without its constructor."""
    kind = _known_class(suffix, node)
    if not is_dataclass(kind) or not isinstance(node, yaml.MappingNode):
        raise _Refused(None, None, suffix, node.start_mark)
    made = object.__new__(kind)
    # The host's references run both ways between parts of a config: hand out the object before it is filled.
    yield made
    settings = loader.construct_mapping(node, deep=True)
    # Settings that this version does not have any more decide nothing.
    vars(made).update({item.name: settings[item.name] for item in fields(kind) if item.name in settings})


def _apply(loader: _KnownClasses, suffix: str, node: yaml.Node) -> Any:
    """A path, or a value of an enum."""
    if not isinstance(node, yaml.SequenceNode):
        raise _Refused(None, None, suffix, node.start_mark)
    arguments = loader.construct_sequence(node, deep=True)
    if suffix in _PATHS and all(isinstance(part, str) for part in arguments):
        return Path(*arguments)
    kind = _known_class(suffix, node)
    if not issubclass(kind, Enum) or len(arguments) != 1:
        raise _Refused(None, None, suffix, node.start_mark)
    return kind(arguments[0])


def _tuple(loader: _KnownClasses, node: yaml.Node) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))  # type: ignore[arg-type]


def _anything_else(loader: _KnownClasses, suffix: str, node: yaml.Node) -> Any:
    raise _Refused(None, None, f"!!python/{suffix}", node.start_mark)


_PYTHON = "tag:yaml.org,2002:python/"
_KnownClasses.add_constructor(f"{_PYTHON}tuple", _tuple)
_KnownClasses.add_multi_constructor(f"{_PYTHON}name:", _name)
_KnownClasses.add_multi_constructor(f"{_PYTHON}object:", _object)
_KnownClasses.add_multi_constructor(f"{_PYTHON}object/apply:", _apply)
_KnownClasses.add_multi_constructor(_PYTHON, _anything_else)
