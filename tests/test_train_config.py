from pathlib import Path

import pytest

from geounet.errors import ConfigError
from geounet.training.config import LossConfig, TrainConfig, read_config

MINIMAL = {"data": ["scenes"], "output": "run"}


def test_a_file_and_what_stands_above_it(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        """
        data = "scenes"
        valid = ["kept"]
        output = "run"
        bands = ["B03", "B08"]
        steps = 10
        [loss]
        name = "focal"
        gamma = 1.5
        [architecture]
        decoder = "unet2015"
        options = { features = [8, 16], padded = true }
        """
    )
    config = read_config(path, steps=20)
    assert config.data == (tmp_path / "scenes",)
    assert config.valid == (tmp_path / "kept",)
    assert config.output == tmp_path / "run"
    assert config.steps == 20
    assert config.loss == LossConfig(name="focal", gamma=1.5)
    assert config.architecture.options == {"features": [8, 16], "padded": True}


@pytest.mark.parametrize(("start", "here"), [("base.safetensors", True), ("default", False)])
def test_a_model_file_to_start_from_lies_beside_the_file(tmp_path, start, here):
    (tmp_path / "base.safetensors").touch()
    path = tmp_path / "config.toml"
    path.write_text(f'data = "scenes"\noutput = "run"\nstart = "{start}"\n')
    assert read_config(path).start == (str(tmp_path / start) if here else start)
    assert read_config(path, start="other").start == "other"


def test_keyword_arguments_are_relative_to_the_working_folder():
    assert TrainConfig.of(**MINIMAL).data == (Path("scenes"),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1}, "no option 'learning_rat'"),
        ({"step": 5}, "no option 'step'; did you mean 'steps'"),
        ({"loss": {"gama": 2}}, "no option 'loss.gama'; did you mean 'gamma'"),
        ({"loss": {"name": "hinge"}}, "loss.name should be .*'bce'.* got 'hinge'"),
        ({"steps": 0}, "steps should be .* got 0"),
        ({"optimiser": {"rate": 0}}, "optimiser.rate should be .* got 0"),
        ({"optimiser": {"accumulate": 0}}, "optimiser.accumulate should be .* got 0"),
        ({"steps": 5, "epochs": 1}, "steps or epochs, not both"),
        ({"bands": ["B03", "B99"]}, "bands: not known: B99"),
        ({"bands": ["B03", "green"]}, "each band may be named once"),
        ({"optional_bands": ["B03"]}, "go with bands"),
        ({"classes": ["water", "land"]}, "classes must be land, water"),
        ({"label_values": {"land": [0, 1], "water": [1]}}, "hold each value once"),
        ({"augment": {"scales": [2, 1]}}, "augment.scales: must be a least size"),
        ({"architecture": {"decoder": "unet2015", "encoder": "resnet18"}}, "has no encoder"),
        ({"fold": [6, 5]}, "as 2/5: 6/5"),
        ({"fold": [0, 5]}, "as 2/5: 0/5"),
        ({"fold": [1, 1]}, "as 2/5: 1/1"),
        ({"fold": [1, 5], "valid": ["other"]}, "not both"),
        ({"output": None}, "output"),
    ],
)
def test_what_breaks_a_rule_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.of(**{**MINIMAL, **options})


def test_what_must_be_given_is_named():
    with pytest.raises(ConfigError, match="output must be given"):
        TrainConfig.of(data=["scenes"])


@pytest.mark.parametrize("text", ["data = ", None])
def test_a_file_that_is_not_toml(tmp_path, text):
    path = tmp_path / "config.toml"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigError, match="must be a TOML file"):
        read_config(path)
