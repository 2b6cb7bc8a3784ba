"""Files that belong together: a folder, a zip or tar archive, a list; here or on a server.

Archives are read in place (GDAL's /vsizip and /vsitar); nothing is ever unpacked to disk. Of a
remote zip its table of contents and the metadata are fetched, then what is read of the bands.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from geounet import remote
from geounet.buckets import list_pages, open_object, store_of, url_of
from geounet.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Bundle", "list_bundle", "open_bundle"]

_MOST_FILES = 20_000
"""A product has a few hundred."""
_DEEPEST = 6
"""Folders below the one that is given; a Sentinel-2 product's bands lie four below its own."""
_LARGEST_TEXT = 64 << 20
"""Bytes of a metadata file; Sentinel-2's largest have a few millions."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, tarfile.TarError)
"""What archives that are not whole raise, beside errors that others raise too."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Names of files that belong together, and how to get at them."""

    uri: str
    """What the user gave."""
    root: str
    """What GDAL needs in front of a name."""
    names: tuple[str, ...]
    """Relative to the root, with forward slashes, sorted."""
    kind: Literal["folder", "zip", "tar", "list", "far folder", "far zip"] = "folder"
    path: Path = field(default_factory=Path)
    """The folder or archive."""
    url: str = field(default="", repr=False)
    """Of a remote folder or archive; it may hold a signature."""
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What GDAL needs for those names of a list that are remote; likewise."""

    def gdal(self, name: str) -> str:
        """What GDAL opens for a file."""
        return self.places.get(name, f"{self.root}{name}")

    def matching(self, pattern: re.Pattern[str]) -> dict[str, re.Match[str]]:
        """The files whose own names fit a pattern, and how."""
        found = {name: pattern.fullmatch(PurePosixPath(name).name) for name in self.names}
        return {name: match for name, match in found.items() if match}

    def read(self, name: str) -> bytes:
        """Bytes of a metadata file.

        Raises:
            SceneError: it cannot be read, or is larger than any metadata.
        """
        try:
            data = self._read(name)
        except (*_DAMAGE, OSError, KeyError, RuntimeError) as error:
            raise SceneError(
                f"cannot read {name} of {self.uri}: {error}. It is damaged; get it again."
            ) from error
        if len(data) > _LARGEST_TEXT:
            raise SceneError(
                f"metadata must be smaller than {_LARGEST_TEXT >> 20} MiB; {name} of {self.uri} "
                f"is not. It is none of a product."
            )
        return data

    def _read(self, name: str) -> bytes:
        most = _LARGEST_TEXT + 1
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                return file.read(most)
        if self.kind == "far zip":
            with _far_file(self.url) as far, zipfile.ZipFile(far) as archive:
                return archive.read(name) if archive.getinfo(name).file_size < most else bytes(most)
        if self.kind == "far folder" or name in self.places:
            with _far_file(url_of(self.gdal(name))) as file:
                return file.read(most)
        if self.kind == "tar":
            with tarfile.open(self.path, "r:") as tar:
                found = (m for m in tar if _name_in_tar(m) == name)
                member = tar.extractfile(next(found, name))
                return member.read(most) if member else b""
        with (self.path / name).open("rb") as file:
            return file.read(most)


def open_bundle(uri: str) -> Bundle | None:
    """The files of a folder or archive; None for anything else.

    Of what is remote, zips and, in buckets, Sentinel-2's folders are taken.

    Raises:
        SceneError: an archive is damaged, or a name in it climbs out of it; a folder holds more
            than one product could, or cannot be listed.
        ConfigError: a bucket cannot be listed, for obstore is not installed.
    """
    path = Path(uri)
    if _is_far(uri):
        return _far_bundle(uri)
    if path.is_dir():
        names = tuple(sorted(_names_in_folder(path, uri)))
        return Bundle(uri, f"{path.absolute()}/", names, "folder", path)
    if not path.is_file():
        return None
    if path.suffix.lower() == ".zip":
        names = _checked(_names_in_zip(path, uri), uri)
        return Bundle(uri, f"/vsizip/{{{path.absolute()}}}/", names, "zip", path)
    if path.suffix.lower() == ".tar":
        names = _checked(_names_in_tar(path), uri)
        return Bundle(uri, f"/vsitar/{{{path.absolute()}}}/", names, "tar", path)
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        raise SceneError(
            f"a compressed tar archive cannot be read in place; got {uri}. Unpack it, and give "
            f"the folder."
        )
    return None


def list_bundle(uris: Sequence[str | os.PathLike[str]]) -> Bundle:
    """Files that were given one by one.

    Raises:
        SceneError: none was given.
    """
    names = [os.fspath(uri) for uri in uris]
    if not names:
        raise SceneError("a scene must have at least one file; got an empty list.")
    shown = [remote.redact(n) if _is_far(n) else n for n in names]
    common = os.path.commonprefix(shown)  # noqa: RUF071 - of characters
    return Bundle(
        f"{re.sub(r'(?<![A-Za-z0-9])(SR_)?(B[01]?)?$', '', common)}*",
        "",
        tuple(n if _is_far(n) else str(Path(n).absolute()) for n in shown),
        "list",
        places={s: remote.gdal_path(n) for s, n in zip(shown, names, strict=True) if _is_far(n)},
    )


def _far_bundle(uri: str) -> Bundle | None:
    url = url_of(uri)
    if not url.startswith(("http://", "https://", "s3://", "gs://", "az://")):
        return None
    place = urlsplit(url).path.rstrip("/").lower()
    shown = remote.redact(uri)
    if place.endswith(".zip"):
        with _far_file(url) as file:
            names = _checked(_names_in_zip(file, shown), shown)
        return Bundle(shown, f"/vsizip/{{{remote.gdal_path(url)}}}/", names, "far zip", url=url)
    if not place.endswith(".safe"):
        return None
    if url.startswith("http"):
        raise SceneError(
            f"a web server does not list a folder; got {shown}. Give the address of its .zip, of "
            f"its STAC item, or of the bucket (s3://)."
        )
    url = url.rstrip("/")
    names = tuple(sorted(_names_in_bucket(url)))
    return Bundle(shown, f"{remote.gdal_path(url)}/", names, "far folder", url=url)


def _far_file(url: str) -> IO[bytes]:
    return remote.open_url(url) if url.startswith("http") else open_object(url)


def _names_in_bucket(url: str) -> Iterator[str]:
    store, path = store_of(url)
    found = (one["path"] for page in list_pages(store, f"{path}/", url) for one in page)
    count = 0
    for count, name in enumerate(found, start=1):
        if count > _MOST_FILES:
            raise SceneError(
                f"a scene's folder holds one product; {url} holds more than {_MOST_FILES} files."
            )
        if not name.rpartition("/")[2].startswith("."):
            yield name.removeprefix(f"{path}/")
    if not count:
        raise SceneError(f"a folder must hold files; there is nothing in {url}.")


def _is_far(uri: str) -> bool:
    return uri.startswith("/vsi") or "://" in uri


def _names_in_folder(folder: Path, uri: str) -> list[str]:
    names: list[str] = []
    for here, folders, files in os.walk(folder):
        inside = Path(here).relative_to(folder)
        if len(inside.parts) >= _DEEPEST:
            folders.clear()
        names += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        if len(names) > _MOST_FILES:
            raise SceneError(
                f"a scene's folder holds one product; {uri} holds more than {_MOST_FILES} files. "
                f"Give the product's own folder."
            )
    return names


def _names_in_zip(path: Path | IO[bytes], shown: str) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    # A symbolic link is an entry like others whose content is where it points.
                    if stat.S_ISLNK(member.external_attr >> 16):
                        continue
                    yield member.filename
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise SceneError(
            f"a zip must be whole; {shown}: {error}. The download may have been cut short; get it "
            f"again."
        ) from error


def _names_in_tar(path: Path) -> Iterator[str]:
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile():
                    yield _name_in_tar(member)
    except (OSError, tarfile.TarError) as error:
        raise SceneError(
            f"a tar archive must be whole; {path}: {error}. The download may have been cut short; "
            f"get it again."
        ) from error


def _name_in_tar(member: tarfile.TarInfo) -> str:
    """As GDAL calls it: of a folder that was packed as ``.`` all begin with ``./``."""
    return member.name.removeprefix("./")


def _checked(names: Iterator[str], uri: str) -> tuple[str, ...]:
    """Refuse names that climb out of the archive: no product has them, so somebody means harm."""
    found = []
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        drive = re.match(r"[A-Za-z]:", name)
        if parts.is_absolute() or ".." in parts.parts or drive:
            raise SceneError(
                f"names in an archive must stay inside it; {uri} holds {name!r}. It is no product "
                f"as any archive gives it out; do not trust it."
            )
        if not parts.name.startswith(".") and "__MACOSX" not in parts.parts:
            found.append(name)
    return tuple(sorted(found))
