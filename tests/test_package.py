"""What the package promises before any of its functions is called."""

import ast
import json
import re
import subprocess
import sys
from importlib import import_module, resources
from pathlib import Path

import pytest

import geounet
from geounet import errors

HEAVY = {"torch", "rasterio", "numpy", "geopandas", "shapely", "pyproj", "pydantic", "rich"}


def _modules_after(code):
    script = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def _type_checking_imports():
    """What a type checker sees: names imported under TYPE_CHECKING in ``geounet``."""
    tree = ast.parse(Path(geounet.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_all_is_exact():
    raised = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, (errors.GeounetError, UserWarning))
    }
    assert set(geounet.__all__) == raised | set(geounet._HOMES) | {"__version__"}
    assert sorted(geounet.__all__) == geounet.__all__
    assert len(set(geounet.__all__)) == len(geounet.__all__)


def test_the_main_names_are_there():
    main = {"run", "open_scene", "load_model", "save_model", "predict_mask", "polygonize"}
    types = {"Grid", "Scene", "Model", "ModelSpec", "RunConfig", "RunResult"}
    assert main | types | {"write_polygons"} <= set(geounet.__all__)


@pytest.mark.parametrize("name", geounet.__all__)
def test_every_name_resolves_to_its_home(name):
    thing = getattr(geounet, name)
    if name in geounet._HOMES:
        home = import_module(f"geounet.{geounet._HOMES[name]}")
        assert thing is getattr(home, name)
        assert name in home.__all__


def test_type_checkers_see_the_same_names():
    assert _type_checking_imports() == {
        name: f"geounet.{home}" for name, home in geounet._HOMES.items()
    }


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segmented'"):
        _ = geounet.segmented
    assert dir(geounet) == sorted(geounet.__all__)


def test_the_docstring_of_run_names_every_option():
    told = geounet.run.__doc__.partition("options: ")[2].partition("Raises:")[0]
    assert set(geounet.RunConfig.model_fields) <= set(re.findall(r"\w+", told))


def test_training_and_evaluation_need_no_import_of_their_own():
    code = "import geounet; geounet.training.train, geounet.evaluate.evaluate"
    assert "geounet.training.fitting" in _modules_after(code)


def test_typing_file_ships():
    assert resources.files("geounet").joinpath("py.typed").is_file()


def test_importing_geounet_loads_nothing_heavy():
    assert not _modules_after("import geounet") & HEAVY


def test_help_loads_neither_torch_nor_rasterio_nor_numpy():
    """What keeps ``--help`` under half a second; time itself is not asserted."""
    code = (
        "import sys; sys.argv = ['geounet', 'run', '--help']\n"
        "from geounet.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code"
    )
    assert not _modules_after(code) & (HEAVY - {"pydantic", "rich"})  # Typer loads these itself
