"""Outputs that are whole or not there: made in a hidden folder beside them, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from geounet.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["check_free", "staged", "sweep", "whole_file"]

_STAGE = ".geounet-"
"""What the names of hidden folders begin with; host and process follow."""


def check_free(outputs: Mapping[str, Path], *, overwrite: bool = False) -> None:
    """Refuse outputs that exist and may not be replaced, and folders that can't be written to.

    Args:
        outputs: what will be written, by kind.
        overwrite: whether files that exist may be replaced; folders never are.

    Raises:
        OutputError: as said.
    """
    for folder in {path.absolute().parent for path in outputs.values()}:
        nearest = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        if not nearest.is_dir():
            raise _not_writable(folder, f"{nearest} is a file")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise _not_writable(folder, f"there is no permission to write to {nearest}")
    for path in outputs.values():
        try:
            str(path).encode()  # as GDAL takes it
            path.lstat()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeEncodeError) as error:
            raise OutputError(
                f"an output's name must be one that the disk takes: {error}. Choose another "
                f"--output or --name."
            ) from error
    folders = [str(path) for path in outputs.values() if path.is_dir()]
    if folders:
        raise OutputError(
            f"an output is a file; these are folders: {', '.join(folders)}. Remove them or "
            f"choose another --output."
        )
    there = [str(path) for path in outputs.values() if path.exists()]
    if there and not overwrite:
        raise OutputError(
            f"an output may not exist unless it is to be replaced: {', '.join(there)}. "
            f"Give --overwrite, or another --output or --name."
        )
    _refuse_in_use(outputs.values())


def _refuse_in_use(outputs: Iterable[Path]) -> None:
    """Refuse to replace a GeoPackage that a program has open for changes.

    SQLite keeps these in a file beside it, and would put them into the new one.
    """
    logs = [path.with_name(path.name + end) for path in outputs for end in ("-wal", "-journal")]
    if there := [str(log) for log in logs if os.path.lexists(log)]:
        raise OutputError(
            f"an output may not be open elsewhere; a program has changes of it in "
            f"{', '.join(there)}. Close it there (if none has it open, remove these), or choose "
            f"another --output or --name."
        )


@contextmanager
def staged(outputs: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Paths to write to; when the block ends without an error they become the outputs.

    Args:
        outputs: what will be written, by kind; all in one folder, which is made if it is not there,
            and gone again, with those above it that were made, where nothing came to lie in it.

    Raises:
        OutputError: the folder cannot be made or written to, or an output not be replaced, as where
            a program has it open.
    """
    folder = next(iter(outputs.values())).parent
    made = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_STAGE}{_owner(os.getpid())}-"))
    except OSError as error:
        _remove_empty(made)
        raise _not_writable(folder, error) from error
    try:
        drafts = {kind: stage / path.name for kind, path in outputs.items()}
        yield drafts
        _refuse_in_use(outputs.values())
        for kind, path in outputs.items():
            _rename(drafts[kind], path)
    except OutputError as error:  # of a draft: whoever reads it knows the outputs' folder alone
        raise OutputError(str(error).replace(str(stage), str(folder))) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        _remove_empty(made)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; when the block ends without an error it becomes the file.

    Raises:
        OutputError: the folder cannot be made or written to, or the file not be written.
    """
    with staged({"file": path}) as drafts:
        try:
            yield drafts["file"]
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"an output must be writable: {path}: {error}. Check the free space."
            ) from error


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the deepest first; those that hold something, or are not there, stay so."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _owner(process: int) -> str:
    host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
    return f"{host}-{process}"


def sweep(folder: Path) -> list[Path]:
    """Remove what processes of this machine that live no more left half-made in a folder.

    Returns:
        What was removed. A folder that another machine's process made, or one that lives, stays.
    """
    left = [path for path in folder.glob(f"{_STAGE}*") if _abandoned(path)]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return left


def _abandoned(stage: Path) -> bool:
    """Whether the process that made a hidden folder is gone; its number may be another's by now."""
    owner, _, _ = stage.name.removeprefix(_STAGE).rpartition("-")
    process = owner.rpartition("-")[2]
    if not process.isdecimal() or owner != _owner(int(process)):
        return False
    try:
        alive = psutil.Process(int(process))
        younger: bool = alive.create_time() > stage.stat().st_ctime + 1
        return younger or bool(alive.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):
        return False


def _rename(draft: Path, path: Path) -> None:
    try:
        draft.replace(path)
    except OSError as error:
        raise _not_writable(path.parent, error) from error


def _not_writable(folder: Path, reason: object) -> OutputError:
    return OutputError(
        f"outputs need a folder that can be written to; {folder} is none: {reason}. "
        f"Choose another --output."
    )
