import inspect

import pytest

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
