"""Where scenes come from, one after another: files, folders, globs, lists, catalogues, buckets.

Nothing here opens a scene, and nothing holds all of them.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re
import string
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from rasterio.errors import RasterioError

from geounet import remote
from geounet.buckets import list_pages, store_of, url_of
from geounet.crossings import date_in_name
from geounet.errors import ConfigError, GeounetError, SceneError
from geounet.products.finding import METADATA
from geounet.products.raster import acquisition_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Source", "check_template", "find_scenes", "identify", "target_of"]

SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".zip", ".tar"})
"""Files that are taken for scenes where a folder or a bucket is given."""
COLUMNS = ("uri", "url", "href", "path", "scene", "file", "filename")
"""Columns of a table that may hold the scenes, the first that is there."""


@dataclass(frozen=True, slots=True)
class Source:
    """A scene that was found."""

    uri: str
    """Absolute path or URI."""
    identity: str | None = None
    """What tells this content from another; None if it was not looked at."""


# -- finding ---------------------------------------------------------------------------------------


def find_scenes(sources: Iterable[str | os.PathLike[str]], *, output: Path) -> Iterator[Source]:
    """Find the scenes that are meant, lazily and in no particular order.

    A source is a scene (path or URI), a folder (searched for rasters), a glob (``**`` for folders
    of any depth), a prefix of an object store that ends with ``/``, a text file with a scene a
    line, a CSV or Parquet table (stac-geoparquet too), a STAC item collection, or ``-`` for
    standard input with a scene a line. Relative paths in a list start at the working folder, links
    in a catalogue at the catalogue.

    Args:
        sources: what was asked for.
        output: the batch's output folder; nothing inside it is a scene.

    Raises:
        ConfigError: a source that is not there, or a table without a column of scenes.
        SceneError: a bucket that cannot be listed.
    """
    inside = os.path.join(os.path.abspath(output), "")  # noqa: PTH100, PTH118 - keeps links as told
    found = chain.from_iterable(_expand(os.fspath(source)) for source in sources)
    return (source for source in found if not source.uri.startswith(inside))


def _expand(source: str) -> Iterator[Source]:
    """What one source stands for."""
    suffix = PurePosixPath(source).suffix.lower()
    if source == "-":
        return _lines(sys.stdin)
    if remote.is_remote(source):
        return _prefix(source) if source.endswith("/") else iter((Source(source),))
    if os.path.isdir(source):  # noqa: PTH112 - says no of what is too long for a name
        return _folder(source)
    if glob.has_magic(source) and not os.path.lexists(source):
        return map(_local, glob.iglob(source, recursive=True))  # noqa: PTH207 - takes absolute ones
    if reader := _LISTS.get(suffix):
        return reader(_existing(source))
    return iter((_local(source),))


def _existing(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"a list of scenes must exist; there is no {source}.")
    return path


def _local(path: str) -> Source:
    if "://" in path or path.startswith("/vsi"):
        return Source(path, None if remote.is_remote(path) else identify(path))
    absolute = os.path.abspath(path)  # noqa: PTH100 - keeps links as told
    try:
        absolute.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"a scene's name must be text in UTF-8, as the manifest holds it; rename "
            f"{os.fsencode(absolute)!r}."
        ) from error
    return Source(absolute, identify(absolute))


def _folder(folder: str) -> Iterator[Source]:
    """The scenes below a folder, or the folder itself; nothing hidden is one."""
    for parent, folders, files in os.walk(folder):
        if any(METADATA.fullmatch(name) for name in files) or parent.lower().endswith(".safe"):
            folders.clear()
            yield _local(parent)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield _local(os.path.join(parent, name))  # noqa: PTH118


def _lines(lines: Iterable[str]) -> Iterator[Source]:
    for line in lines:
        text = line.strip()
        if text and not text.startswith("#"):
            yield _local(text)


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """One clear error for a list that is not what its name says."""
    try:
        yield
    except GeounetError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise ConfigError(f"a list of scenes must be {what}; {path} is none: {error}.") from error


def _text(path: Path) -> Iterator[Source]:
    with _readable(path, "text in UTF-8"), path.open(encoding="utf-8-sig") as file:
        yield from _lines(file)


def _csv(path: Path) -> Iterator[Source]:
    with (
        _readable(path, "a table in UTF-8"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        rows = csv.DictReader(file)
        column = _column(rows.fieldnames or (), path)
        yield from _lines(row[column] or "" for row in rows)


def _column(names: Iterable[str], path: Path) -> str:
    by_name = {name.strip().lower(): name for name in names}
    for name in COLUMNS:
        if name in by_name:
            return by_name[name]
    raise ConfigError(
        f"a table of scenes has a column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; "
        f"{path} has {', '.join(by_name) or 'none'}."
    )


def _stac(path: Path) -> Iterator[Source]:
    base = path.resolve().as_uri()
    with _readable(path, "a STAC item or item collection"):
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        features = found["features"] if found["type"] == "FeatureCollection" else [found]
        yield from (_item(feature, base) for feature in features)


def _item(item: Mapping[str, Any], base: str) -> Source:
    """The scene of a STAC item: its one raster of data, else the item itself."""
    rasters = [
        asset["href"]
        for asset in (item.get("assets") or {}).values()
        if asset and "data" in (asset.get("roles") or ()) and _is_raster(asset)
    ]
    own = [link["href"] for link in item.get("links") or () if link.get("rel") == "self"]
    href = rasters[0] if len(rasters) == 1 else next(iter(own), None)
    if href is None:
        raise ConfigError(
            f"a STAC item needs one raster asset with the role 'data', or a link to itself; "
            f"{item.get('id')} has {len(rasters)} such assets and no such link."
        )
    whole = urljoin(base, href)
    return _local(unquote(urlsplit(whole).path) if whole.startswith("file:") else whole)


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = asset.get("type") or ""
    return kind.startswith(("image/tiff", "image/jp2")) or (
        not kind and PurePosixPath(urlsplit(asset["href"]).path).suffix.lower() in SUFFIXES
    )


def _parquet(path: Path) -> Iterator[Source]:
    """A table of paths, or stac-geoparquet: items as rows."""
    from pyarrow import parquet  # noqa: PLC0415 - only where it is asked for

    with _readable(path, "a Parquet table"), parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if "assets" in names:
            columns = [name for name in ("id", "assets", "links") if name in names]
            base = path.resolve().as_uri()
            for rows in file.iter_batches(1024, columns=columns):
                yield from (_item(row, base) for row in rows.to_pylist())
            return
        column = _column(names, path)
        for rows in file.iter_batches(4096, columns=[column]):
            yield from _lines(text or "" for text in rows.column(0).to_pylist())


_LISTS = {
    ".txt": _text,
    ".lst": _text,
    ".csv": _csv,
    ".json": _stac,
    ".geojson": _stac,
    ".parquet": _parquet,
}


# -- object stores ---------------------------------------------------------------------------------


def _prefix(prefix: str) -> Iterator[Source]:
    """The rasters below a prefix of a bucket, a page of the listing at once.

    Raises:
        ConfigError: obstore is not installed.
        SceneError: the bucket cannot be listed.
    """
    url = url_of(prefix)
    store, path = store_of(url)
    root = url[: len(url) - len(path) - 1]
    for page in list_pages(store, path, prefix):
        for found in page:
            if PurePosixPath(found["path"]).suffix.lower() in SUFFIXES:
                yield Source(f"{root}/{found['path']}", _etag(found))


def _etag(found: Mapping[str, Any]) -> str:
    etag = found.get("e_tag")
    return f"etag {etag}" if etag else f"{found['size']} bytes, {found['last_modified']}"


# -- identity --------------------------------------------------------------------------------------


def identify(uri: str) -> str | None:
    """What tells the present content of a scene from another: size and time of change, or the ETag.

    A folder is told by those of all files in it. None where nobody can tell: the scene is not
    there, or the server does not say.
    """
    if remote.is_remote(uri):
        return _identify_remote(uri)
    try:
        path = _path(uri)
        if path.is_dir():
            return _identify_folder(path)
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def _identify_remote(uri: str) -> str | None:
    try:
        import obstore  # noqa: PLC0415 - only where it is asked for
        from obstore.exceptions import BaseError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return _etag(obstore.head(*store_of(url_of(uri))))
    except (BaseError, OSError, ValueError):  # the scene's own error is told when it is read
        return None


def _identify_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        status = path.stat()
        text = f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(os.fsencode(text))
    return f"files {digest.hexdigest()[:32]}"


def _path(uri: str) -> Path:
    """The local file or folder of a URI; the archive's for what lies inside one."""
    path = Path(re.sub(r"^(?:[a-z+]+://|/vsi[a-z0-9]+/)", "", uri).split("!")[0])
    if path.exists() or not ("://" in uri or uri.startswith("/vsi")):
        return path
    return next((parent for parent in path.parents if parent.is_file()), path)


# -- names of outputs ------------------------------------------------------------------------------

_FIELDS = frozenset({"stem", "date", "parent"})


def check_template(template: str) -> None:
    """Check how outputs are named.

    Raises:
        ConfigError: a field that is not known, or a path that leaves the output folder.
    """
    try:
        fields = {name for _, name, *_ in string.Formatter().parse(template) if name is not None}
        if fields <= _FIELDS:
            template.format(**dict.fromkeys(fields, ""))
    except (ValueError, LookupError) as error:
        raise ConfigError(f"--name: {error}; got {template!r}.") from error
    if fields - _FIELDS or not fields:
        raise ConfigError(
            f"--name takes {{stem}}, {{date}} and {{parent}}, at least one of them; "
            f"got {template!r}."
        )
    parts = PurePosixPath(template).parts
    if PurePosixPath(template).is_absolute() or ".." in parts or template.endswith("/"):
        raise ConfigError(
            f"--name is a path inside the output folder, without a suffix; got {template!r}."
        )


def target_of(uri: str, template: str) -> str:
    """Where the outputs of a scene go, relative to the output folder and without suffixes.

    Args:
        uri: of the scene.
        template: a path with ``{stem}`` (the scene's file name without suffix), ``{parent}`` (the
            name of its folder) and ``{date}`` (2024-01-31: of the file's name, its folder's name
            or its tags; ``undated`` if none says it).
    """
    stem, parent = _names(uri)
    values = {"stem": stem, "parent": parent or "root"}
    if "{date" in template:
        values["date"] = _date(uri, stem, parent) or "undated"
    return str(PurePosixPath(template.format(**values)))


def _names(uri: str) -> tuple[str, str]:
    """File name without suffix, and the name of the folder, fit for file names."""
    if remote.is_remote(uri):
        return remote.stem(uri), remote.stem(str(PurePosixPath(uri.partition("?")[0]).parent))
    path = PurePosixPath(re.sub(r"[!*?]", "", uri))
    return re.sub(r"\.SAFE$", "", path.stem, flags=re.IGNORECASE), path.parent.name


def _date(uri: str, stem: str, parent: str) -> str:
    found = date_in_name(stem) or date_in_name(parent)
    if found:
        return found
    try:
        return (acquisition_time(uri) or "")[:10]
    except (SceneError, RasterioError, OSError):  # told when the scene is read
        return ""
