"""Outputs are whole or not there, and so are the folders made for them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from geounet.errors import OutputError
from geounet.staging import check_free, staged

if TYPE_CHECKING:
    from pathlib import Path


def _fail_in(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="midway"):
        _break_off(folder, "mask")


def _break_off(folder: Path, name: str) -> None:
    with staged({"mask": folder / "a.tif"}) as drafts:
        (drafts.get(name) or folder / name).write_bytes(b"half")
        raise RuntimeError("midway")


def test_a_failed_run_removes_the_folders_that_it_made(tmp_path: Path) -> None:
    _fail_in(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_leaves_folders_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    _fail_in(tmp_path / "out")
    _fail_in(tmp_path / "out" / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_a_failed_run_leaves_what_others_put_into_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with pytest.raises(RuntimeError, match="midway"):
        _break_off(folder, "other.txt")
    assert [path.name for path in folder.iterdir()] == ["other.txt"]


def test_a_folder_that_cannot_be_made_leaves_none_above_it(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="can be written to"),
        staged({"mask": tmp_path / "new" / ("x" * 300) / "a.tif"}),
    ):
        pytest.fail("there is no folder to write to")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, os.fsdecode(b"caf\xe9")])
def test_a_name_that_no_disk_or_gdal_takes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="must be one that the disk takes"):
        check_free({"mask": tmp_path / f"{name}.tif"})


def test_outputs_stay_with_the_folders_made_for_them(tmp_path: Path) -> None:
    mask = tmp_path / "new" / "deep" / "a.tif"
    with staged({"mask": mask}) as drafts:
        drafts["mask"].write_bytes(b"whole")
    assert mask.read_bytes() == b"whole"
    assert [path.name for path in mask.parent.iterdir()] == ["a.tif"]


def test_a_geopackage_that_a_program_has_open_is_not_replaced(tmp_path: Path) -> None:
    """SQLite would put what it has in its log into the new file."""
    path = tmp_path / "a.gpkg"
    with closing(sqlite3.connect(path)) as program:
        program.execute("PRAGMA journal_mode = WAL")
        program.execute("CREATE TABLE edited (x)")
        with pytest.raises(OutputError, match=r"open elsewhere; .*a\.gpkg-wal\. Close it"):
            check_free({"polygons": path}, overwrite=True)
        before = path.read_bytes()
        with (
            pytest.raises(OutputError, match="open elsewhere"),
            staged({"mask": tmp_path / "a.tif", "polygons": path}) as drafts,
        ):
            drafts["polygons"].write_bytes(b"new")
        assert (path.read_bytes(), (tmp_path / "a.tif").exists()) == (before, False)
    check_free({"polygons": path}, overwrite=True)
    check_free({"polygons": tmp_path / ("x" * 250 + ".gpkg")[-255:]})


def test_a_name_that_no_disk_takes_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"name must be one that the disk takes.*--name"):
        check_free({"mask": tmp_path / f"{'x' * 300}_mask.tif"})
