"""Buckets: listing them and reading small objects, with the settings that GDAL reads scenes with.

obstore does it (extra ``geounet[cloud]``); `fetch` takes what lies on a web server too.
"""

from __future__ import annotations

import io
import os
import re
from configparser import ConfigParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from geounet import remote
from geounet.errors import ConfigError, SceneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO

    from obstore.store import ObjectStore

__all__ = ["fetch", "list_pages", "open_object", "store_below", "store_of", "url_of"]

_T = TypeVar("_T")

_FETCH_BYTES = 64 << 20


def fetch(uri: str) -> bytes:
    """Read a small remote file, such as a STAC item or shorelines, whole.

    Raises:
        SceneError: it cannot be had, or is large.
        ConfigError: it lies in a bucket, and obstore is not installed.
    """
    url, most = url_of(uri), _FETCH_BYTES + 1
    if url.startswith(("http://", "https://")):
        body = remote.fetch_url(url, most)
    else:
        with open_object(url) as file:
            body = file.read(most)
    if len(body) == most:
        raise SceneError(
            f"a STAC item, or a file of lines, takes {_FETCH_BYTES >> 20} MiB at most; "
            f"{remote.redact(uri)} is larger. Give the URL of an item or of a raster, or download "
            f"it."
        )
    return body


def list_pages(store: ObjectStore, path: str, prefix: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    """What lies below a path of a store, a page of the listing at once.

    Args:
        store: of a bucket.
        path: in it.
        prefix: what to call it in an error.

    Raises:
        SceneError: the bucket cannot be listed.
    """
    import obstore  # noqa: PLC0415 - only where it is asked for
    from obstore.exceptions import BaseError  # noqa: PLC0415

    try:
        yield from obstore.list(store, prefix=path)
    except (BaseError, OSError) as error:
        failure = remote.explain(prefix, error)
    else:
        return
    raise failure  # outside the handler: the cause may hold what opens doors


_VSI = re.compile(r"^/vsi(s3|gs|az|curl)(?:_streaming)?/")


def url_of(uri: str) -> str:
    """GDAL's path of a remote scene as a URL."""
    return _VSI.sub(lambda kind: "" if kind[1] == "curl" else f"{kind[1]}://", uri)


def store_of(url: str) -> tuple[ObjectStore, str]:
    """The store of a URL, and the path in it.

    Raises:
        ConfigError: obstore is not installed.
    """
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    if scheme.startswith("http"):
        path = path.partition("?")[0]
    return store_below(f"{scheme}://{place}"), path.lstrip("/")


def store_below(url: str) -> ObjectStore:
    """A store of what lies below a URL, which may be a web server's too, with GDAL's settings.

    Raises:
        ConfigError: obstore is not installed.
    """
    try:
        from obstore.store import from_url  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        raise ConfigError(
            "what lies in a bucket is listed, and small files are read, with obstore: "
            "pip install 'geounet[cloud]'."
        ) from error
    scheme = url.partition("://")[0]
    plain = {"client_options": {"allow_http": True}} if scheme == "http" else {}
    return from_url(url, **{"retry_config": {"max_retries": 3}, **plain, **_settings(scheme)})


def _settings(scheme: str, env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What GDAL's names for S3 settings mean to obstore, which reads AWS's own names by itself."""
    if scheme != "s3":
        return {}
    settings: dict[str, Any] = {}
    if endpoint := env.get("AWS_S3_ENDPOINT"):
        plain = env.get("AWS_HTTPS", "YES").upper() in {"NO", "FALSE", "OFF", "0"}
        settings["endpoint"] = f"http{'' if plain else 's'}://{endpoint}"
        settings["client_options"] = {"allow_http": plain}
    if env.get("AWS_NO_SIGN_REQUEST", "").upper() in {"YES", "TRUE", "ON", "1"}:
        return {**settings, "skip_signature": True}
    return settings if "AWS_ACCESS_KEY_ID" in env else {**settings, **_profile(env)}


def _profile(env: Mapping[str, str]) -> dict[str, str]:
    """Keys and region of a profile in the files of ``~/.aws``, which GDAL reads and obstore not."""
    name = env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or "default"
    files = ConfigParser(interpolation=None)
    files.read(
        Path(env.get(variable) or f"~/.aws/{file}").expanduser()
        for variable, file in (
            ("AWS_CONFIG_FILE", "config"),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        )
    )
    sections = [files[title] for title in (f"profile {name}", name) if title in files]
    known = {key: value for section in sections for key, value in section.items()}
    if {"AWS_REGION", "AWS_DEFAULT_REGION"} & env.keys():
        known.pop("region", None)
    wanted = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region")
    return {key: known[key] for key in wanted if key in known}


def open_object(uri: str) -> IO[bytes]:
    """An object as a file of which only those parts come that are read.

    Raises:
        ConfigError: obstore is not installed.
        SceneError: it cannot be had.
    """
    store, path = store_of(uri)

    def fetch(start: int, length: int) -> bytes:
        return _reported(uri, lambda: bytes(store.get_range(path, start=start, length=length)))

    size = _reported(uri, lambda: int(store.head(path)["size"]))
    return io.BufferedReader(remote.Parts(size, fetch), remote.PART_BYTES)


def _reported(uri: str, call: Callable[[], _T]) -> _T:
    """What a store gives, or one clear error."""
    from obstore.exceptions import BaseError  # noqa: PLC0415

    try:
        return call()
    except (BaseError, OSError) as error:
        failure = remote.explain(uri, error)
    raise failure  # outside the handler: the cause may hold what opens doors
