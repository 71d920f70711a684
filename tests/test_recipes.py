"""The recipes in configs/: each is understood by the live command line of all methods and changes something."""

from copy import deepcopy
from pathlib import Path

import pytest
import tyro
from nerfstudio.engine.trainer import TrainerConfig

from craym_nerfstudio.methods import craym, craym_cpu, craym_lite

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = sorted(CONFIGS.rglob("*.args"))
METHODS = {each.config.method_name: each.config for each in (craym, craym_cpu, craym_lite)}


def words(*names: str) -> list[str]:
    """What the shell makes of ``$(grep -hv '^#' ...)``."""
    lines = [line for name in names for line in (CONFIGS / f"{name}.args").read_text().splitlines()]
    return " ".join(line for line in lines if not line.startswith("#")).split()


def parsed(method: str, arguments: list[str]) -> TrainerConfig:
    """A method's config after the command line, in the host's flavour of tyro."""
    form = tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[TrainerConfig]]
    return tyro.cli(form, default=deepcopy(METHODS[method]), args=arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_recipe_is_understood(recipe: Path, method: str) -> None:
    name = recipe.relative_to(CONFIGS).with_suffix("").as_posix()
    assert parsed(method, words(name)).pipeline != METHODS[method].pipeline
    assert recipe.read_text().startswith("# ")


def test_recipes_combine() -> None:
    pipeline = parsed("craym-lite", words("ablation/kre", "noise/l2g")).pipeline
    assert pipeline.datamanager.dataparser.pose_noise == "l2g"
    assert pipeline.model.enrichment and not pipeline.model.coherency
    assert pipeline.datamanager.dataparser.max_image_size_px == 400


def test_data_options_keep_the_other_defaults_of_the_method() -> None:
    parser = parsed("craym-lite", ["craym-data", "--eval-interval", "5"]).pipeline.datamanager.dataparser
    assert parser.eval_interval == 5
    assert parser.max_image_size_px == METHODS["craym-lite"].pipeline.datamanager.dataparser.max_image_size_px


def test_fixed_cameras_are_globs() -> None:
    start = parsed("craym", words("robot_fixed_cameras")).pipeline.start
    assert start.fixed_cameras == ("calibrated_*",)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("base", (False, False, False, False)),
        ("kre", (True, False, False, False)),
        ("kre_mrc", (True, True, False, False)),
        ("epipolar", (False, False, True, False)),
        ("epipolar_alignment", (False, False, True, True)),
        ("all", (True, True, True, True)),
    ],
)
def test_ablation_is_that_of_the_paper(name: str, parts: tuple[bool, ...]) -> None:
    """KRE, MRC, L_e, L_a; where a loss is on it has the method's own weight, so only the parts differ."""
    pipeline, default = parsed("craym", words(f"ablation/{name}")).pipeline, craym.config.pipeline.model
    model = pipeline.model
    weights = (model.epipolar_loss_mult, model.point_alignment_loss_mult)
    assert (model.enrichment, model.coherency, *(weight > 0 for weight in weights)) == parts
    assert weights[0] in (0, default.epipolar_loss_mult)
    assert weights[1] in (0, default.point_alignment_loss_mult)
    assert pipeline.start.pose_init == "input"
