"""A run's config.yml is settings: what else it names is refused by one error, and nothing of it runs."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from nerfstudio.configs.method_configs import method_configs

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.config_file import load_config
from craym_nerfstudio.export.run import load_run
from craym_nerfstudio.methods import craym, craym_lite


@pytest.mark.parametrize(
    "config", [craym.config, craym_lite.config, method_configs["nerfacto"]], ids=["craym", "craym-lite", "nerfacto"]
)
def test_a_config_comes_back_as_it_was(config: object, tmp_path: Path) -> None:
    config = deepcopy(config)
    config.data, config.load_dir = Path("/data/scene 1"), Path("relative")  # type: ignore[attr-defined]
    (tmp_path / "config.yml").write_text(yaml.dump(config))
    assert load_config(tmp_path / "config.yml") == config


@pytest.mark.parametrize(
    "named",
    [
        "!!python/object/apply:os.system ['touch {pwned}']",
        "!!python/object/new:os.system ['touch {pwned}']",
        "!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch {pwned}']",
        "!!python/object/apply:pathlib.Path.touch ['{pwned}']",
        "!!python/object/apply:craym_nerfstudio.storage.write_text ['{pwned}', '']",
        "!!python/name:os.system ''",
        "!!python/name:craym_nerfstudio.storage.os ''",
        "!!python/name:craym_nerfstudio.storage.FileLock ''",
        "!!python/object:craym_nerfstudio.trainer.CraymTrainer {{}}",
        "!!python/object/apply:craym_nerfstudio.methods.AdamWConfig []",
        "!!python/module:os ''",
    ],
)
def test_what_is_no_setting_is_refused(named: str, tmp_path: Path) -> None:
    pwned = tmp_path / "pwned"
    text = yaml.dump(craym_lite.config).replace(
        "relative_model_dir:", "extra: " + named.format(pwned=pwned) + "\nx:", 1
    )
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(InputError, match=r"This config names .*nothing of it was executed.*config\.yml"):
        load_config(tmp_path / "config.yml")
    assert not pwned.exists()


def test_methods_of_settings_cannot_be_replaced(tmp_path: Path) -> None:
    text = yaml.dump(craym_lite.config) + "setup: 1\nget_base_dir: 2\n"
    (tmp_path / "config.yml").write_text(text)
    assert callable(load_config(tmp_path / "config.yml").setup)


def test_a_class_that_has_moved_is_told_from_a_threat(tmp_path: Path) -> None:
    text = yaml.dump(craym_lite.config).replace("craym_nerfstudio.methods.AdamWConfig", "craym_nerfstudio.gone.AdamW")
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(InputError, match=r"Written by another version \(no craym_nerfstudio\.gone\.AdamW\)"):
        load_config(tmp_path / "config.yml")


def test_a_run_of_another_method_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(yaml.dump(method_configs["nerfacto"]))
    with pytest.raises(InputError, match="A run of method nerfacto"):
        load_run(tmp_path)
