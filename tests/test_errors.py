import inspect

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geounet import errors


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("SceneError", ValueError),
        ("ModelError", ValueError),
        ("OutputError", OSError),
        ("ConfigError", ValueError),
    ],
)
def test_each_error_has_two_parents(name, builtin):
    error = getattr(errors, name)
    assert error.__bases__ == (errors.GeounetError, builtin)


def test_the_parent_is_no_builtin_error_of_use():
    assert errors.GeounetError.__bases__ == (Exception,)
    assert errors.GeounetWarning.__bases__ == (UserWarning,)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    children = {c for c in classes if issubclass(c, errors.GeounetError)} - {errors.GeounetError}
    drawn = [line.split()[1:3] for line in errors.__doc__.splitlines() if "──" in line]
    assert {name: parent.strip("()") for name, parent in drawn} == {
        c.__name__: c.__bases__[1].__name__ for c in children
    }


def test_a_message_survives_the_os_error_parent():
    assert str(errors.OutputError("no room on the disk")) == "no room on the disk"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rate: float = Field(default=1.0, gt=0)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tile: int = Field(default=1, ge=1)
    box: tuple[int, int] | None = None
    table: _Table = _Table()
    data: str


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile should be greater than or equal to 1; got 0."),
        ({"table": {"rate": -1}}, "table.rate should be greater than 0; got -1."),
        ({"box": (1,)}, "box has too few values; got (1,)."),
        ({"tle": 3}, "there is no option 'tle'; did you mean 'tile'?"),
        ({"table": {"rat": 3}}, "there is no option 'table.rat'; did you mean 'rate'?"),
        ({"retires": 3}, "there is no option 'retires'; did you mean 'retries'?"),
        ({"xyz": 3}, "there is no option 'xyz'."),
        ({"data": None}, "data should be a valid string; got None."),
    ],
)
def test_a_broken_rule_is_told_with_name_and_value(options, message):
    with pytest.raises(ValidationError) as caught:
        _Options(**{"data": "", **options})
    assert str(errors.broken_rule(caught.value, _Options, ["retries"])) == message


def test_an_option_that_is_not_there_is_named():
    with pytest.raises(ValidationError) as caught:
        _Options()
    assert str(errors.broken_rule(caught.value, _Options)) == "data must be given."
