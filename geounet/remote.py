"""Scenes that lie on a server or in object storage: GDAL's paths and settings, failures, secrets.

GDAL does the reading, by range requests through its ``/vsi`` file systems, and finds credentials
itself (environment, ``~/.aws``, instance roles). Here is what it leaves open: settings that suit
large files read in parts, one clear error for each way that a server fails, and URLs whose
signatures and passwords nobody gets to see.
"""

from __future__ import annotations

import http.client
import io
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import rasterio.env
from rasterio.errors import RasterioError

from geounet.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "attempt",
    "explain",
    "fetch_url",
    "file_name",
    "gdal_path",
    "is_remote",
    "open_url",
    "redact",
    "settings",
    "stem",
]

_T = TypeVar("_T")

_FILE_SYSTEMS = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
"""What a URI's scheme and ``://`` become in GDAL's words."""

_SETTINGS = {
    # One file is asked for, so the folder around it is not listed, nor sidecars looked for.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # The header of a COG of a whole tile in one request.
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    # GDAL retries 429, 500, 502, 503, 504 and reset connections, and doubles the delay each time.
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    # A stalled transfer ends by its speed: a slow line may take minutes for a large range.
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
    # Without this GDAL answers for a file from memory for as long as the process lives, even that
    # it could not be had: nothing would come of trying again.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http:/vsis3/:/vsigs/:/vsiaz/",
}

_REQUIRED = {
    # With more threads GDAL's GeoTIFF reader returns zeros and no error where a request failed.
    "GDAL_NUM_THREADS": "1",
}

_TRIES = 3
_DELAY = 1.0
_FETCH_TIMEOUT = 30.0
PART_BYTES = 1 << 17
"""The least that is fetched at once of a file that is read in parts."""

_REMOTE = re.compile(r"(?:^|[+/])(?:https?|s3|gs|az)://|/vsi(?:curl|s3|gs|az)(?:_streaming)?[/?]")
_USER = re.compile(r"(?<=://)[^/?#\s'\"<>@]*(?:@[^/?#\s'\"<>@]*)*@")
_INNER_FILE_SYSTEM = re.compile(r"^(?:/vsi\w+/)+(?=\w+://)")
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')
_QUERY = re.compile(r"[?][^\s'\"<>=?]+=[^\s'\"<>]*")


def is_remote(uri: str) -> bool:
    """Whether reading it goes over the network; a VRT's text does if one of its sources does."""
    return _REMOTE.search(uri) is not None


def gdal_path(uri: str) -> str:
    """The path under which GDAL opens a URI; anything but http(s), s3, gs and az stays as it is."""
    scheme, mark, rest = uri.partition("://")
    return _FILE_SYSTEMS[scheme] + rest if mark and scheme in _FILE_SYSTEMS else uri


def redact(text: str) -> str:
    """A URI, or a text with URIs in it, without what may open doors: users, passwords, queries."""
    return _QUERY.sub("", _USER.sub("", text))


def file_name(uri: str) -> str:
    """File name without folder, query and what no file system takes; without a file the host's."""
    path, host = _path_and_host(uri)
    return _NOT_IN_NAMES.sub("_", path.name or host)


def stem(uri: str) -> str:
    """The same without the file's suffix."""
    path, host = _path_and_host(uri)
    return _NOT_IN_NAMES.sub("_", path.stem or host)


def _path_and_host(uri: str) -> tuple[PurePosixPath, str]:
    parts = urlsplit(_INNER_FILE_SYSTEM.sub("", uri))
    return PurePosixPath(unquote(parts.path)), parts.netloc.rpartition("@")[2]


def settings(uri: str) -> dict[str, str]:
    """GDAL's settings for reading a URI; none for a local one, and few that the user has set."""
    if not is_remote(uri):
        return {}
    _guard_logs()
    told = rasterio.env.getenv() if rasterio.env.hasenv() else {}
    own = {k: v for k, v in _SETTINGS.items() if k not in os.environ and k not in told}
    return own | _REQUIRED


def attempt(uri: str, call: Callable[[], _T]) -> _T:
    """Do something that makes GDAL read a URI, again where that may help.

    GDAL has retried what it knows to be passing; here follow transfers that stalled or came back
    cut short. What a local path raises is raised as it is.

    Args:
        uri: what is read.
        call: reads it, inside an environment with `settings`.

    Raises:
        SceneError: it cannot be had. The message says what the server did and what to do, and
            neither it nor its traceback shows a secret.
    """
    if not is_remote(uri):
        return call()
    _guard_logs()
    for left in reversed(range(_TRIES)):
        since = time.monotonic()
        try:
            return call()
        except (RasterioError, OSError) as error:
            failure = _explain(_texts(error), _WATCH.status(since))
            if left and failure.passing and not failure.retried:
                time.sleep(_DELAY * 2 ** (_TRIES - 1 - left))
                continue
        # Outside the handler: the cause holds the URL with its signature.
        raise failure.error(uri)
    raise AssertionError("unreachable")


def fetch_url(url: str, most: int) -> bytes:
    """A file on a web server, whole, or as many bytes of it.

    Raises:
        SceneError: as `attempt` does.
    """

    def read() -> bytes:
        with _asked(url) as answer:
            body: bytes = answer.read(most)
            if answer.length and len(body) < most:
                raise OSError(f"{answer.length} bytes did not come")
        return body

    return _patiently(url, read)


def _patiently(uri: str, call: Callable[[], _T]) -> _T:
    """Do something that urllib does, again where that may help."""
    for left in reversed(range(_TRIES)):
        try:
            return call()
        except urllib.error.HTTPError as error:
            failure = _explain("", error.code)
        except (OSError, http.client.HTTPException) as error:
            failure = _explain(str(error), None)
        if not (left and failure.passing):
            raise failure.error(uri)
        time.sleep(_DELAY * 2 ** (_TRIES - 1 - left))
    raise AssertionError("unreachable")


class Parts(io.RawIOBase):
    """A remote file of which only those parts come that are read."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size, self._fetch, self._at = size, fetch, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fetch what follows, as much as there is room for."""
        length = max(min(len(buffer), self._size - self._at), 0)
        data = self._fetch(self._at, length) if length else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_url(url: str) -> IO[bytes]:
    """A file on a web server as one of which only those parts come that are read.

    Raises:
        SceneError: it cannot be had, or the server does not serve parts.
    """

    def fetch(start: int, length: int) -> bytes:
        return _patiently(url, lambda: _fetch_part(url, start, length)[0])

    size = _patiently(url, lambda: _fetch_part(url, 0, 1)[1])
    return io.BufferedReader(Parts(size, fetch), PART_BYTES)


def _fetch_part(url: str, start: int, length: int) -> tuple[bytes, int]:
    """Some bytes of a file, and how many it has."""
    span = {"Range": f"bytes={start}-{start + length - 1}"}
    with _asked(url, span) as answer:
        if answer.status != 206:
            raise OSError("Range downloading not supported by this server")
        body: bytes = answer.read(length)
        if len(body) != length:
            raise OSError(f"{len(body)} of {length} bytes came")
        return body, int(answer.headers["Content-Range"].rpartition("/")[2])


def _asked(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """The open answer to a request, with the user and password that the URL holds."""
    parts = urlsplit(url)
    told = {"User-Agent": "geounet", **(headers or {})}
    request = urllib.request.Request(url, headers=told)  # noqa: S310 (http only)
    if parts.username is not None:
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
        passwords.add_password(
            None,
            plain,
            unquote(parts.username),
            unquote(parts.password or ""),
            is_authenticated=True,
        )
        request.full_url = plain
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    else:
        opener = urllib.request.build_opener()
    return opener.open(request, timeout=_FETCH_TIMEOUT)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why something remote could not be read."""

    what: str
    todo: str
    passing: bool = False
    """Whether the same may succeed later."""
    retried: bool = False
    """Whether GDAL has tried it again by itself."""

    def error(self, uri: str) -> SceneError:
        error = SceneError(f"cannot read {_shown(uri)}: {self.what}. {self.todo}")
        error.passing = self.passing
        return error


def _shown(uri: str) -> str:
    """What to call it in an error: the URI as a person knows it."""
    if uri.lstrip().startswith("<"):
        return "a remote file of the scene"
    for scheme, folder in _FILE_SYSTEMS.items():
        if uri.startswith(folder):
            return redact(f"{scheme}://{uri.removeprefix(folder)}")
    return redact(uri)


_NO_ACCESS = (
    "Check the credentials; a signed URL may have expired: get a fresh one. For a public bucket "
    "set AWS_NO_SIGN_REQUEST=YES (GS_NO_SIGN_REQUEST, AZURE_NO_SIGN_REQUEST), for one whose "
    "readers pay AWS_REQUEST_PAYER=requester."
)
_REFUSED = "Check the address; a signed URL may have expired: get a fresh one."
_NOT_THERE = "Check the address; the archive may have moved or removed it."
_KINDS = {
    r"(_SIGN_REQUEST|_KEY|STORAGE_ACCOUNT).*(not defined|configuration option)|NoCredentials":
        _Failure("there are no credentials for this storage", _NO_ACCESS),
    r"AccessDenied|Invalid(AccessKey|Credentials)|DoesNotMatch|ExpiredToken|PermissionError":
        _Failure("the server refuses access", _NO_ACCESS),
    r"NoSuchKey|NoSuchBucket|AWSObjectNotFound|AWSBucketNotFound|FileNotFoundError":
        _Failure("there is nothing there", _NOT_THERE),
    r"Range downloading not supported":
        _Failure("the server does not serve parts of a file", "Download it and give its path."),
    r"timed out|[Tt]imeout|too slow":
        _Failure("the server stopped answering", "Try again later.", passing=True),
    r"resolve host|Name or service|getaddrinfo|No address":
        _Failure("the name of the server is not known", "Check the address and the network."),
    r"[Ff]ailed to connect|Could not connect|Connection refused|unreachable":
        _Failure("the server cannot be reached", "Check the address, or wait.", passing=True),
    r"certificate|SSL":
        _Failure("the server's certificate is not trusted", "Check it, or set CURL_CA_BUNDLE."),
    r"not recognized as being in a supported": _Failure(
        "what the server sent is no raster that GDAL opens",
        "Open the address in a browser: it may be a page that asks to log in.",
    ),
}  # fmt: skip


def explain(uri: str, error: Exception) -> SceneError:
    """What any storage package's error about a URI means, without secrets.

    Args:
        uri: what could not be read or listed.
        error: as the package raised it.
    """
    text = str(error).partition("Debug source:")[0]  # obstore repeats itself in Rust's words
    return _explain(f"{type(error).__name__} {text}", None).error(uri)


def _explain(text: str, status: int | None) -> _Failure:
    """What GDAL's message and the last HTTP status mean."""
    stated = re.search(r"(?:response[_ ]code|(?:error|status) code)\W+(\d{3})", text)
    status = int(stated[1]) if stated else status
    by_text = next(
        (failure for pattern, failure in _KINDS.items() if re.search(pattern, text)), None
    )
    if status in (401, 403, 409):  # 409: Azure's word for a container that is not public
        return _Failure(f"the server refuses access (HTTP {status})", _NO_ACCESS)
    if status in (404, 410):
        return _Failure(f"there is nothing there (HTTP {status})", _NOT_THERE)
    failing = status is not None and (status in (408, 429) or status >= 500)
    if failing and (by_text is None or stated):
        what = f"the server keeps failing (HTTP {status})"
        return _Failure(what, "Try again later.", passing=True, retried=True)
    # What was only seen in GDAL's log may be the answer to a HEAD, after which it goes on.
    sure = stated is not None or not text
    if by_text is None and sure and status is not None and 400 <= status < 500:
        return _Failure(f"the server refuses the request (HTTP {status})", _REFUSED)
    return by_text or _Failure(
        f"its data come back cut short or damaged ({redact(text).strip() or 'no reason given'})",
        "Try again later; if that does not help the file itself is damaged.",
        passing=True,
    )


def _texts(error: BaseException | None) -> str:
    """The messages of an error and its causes, the first of them last in time."""
    texts: list[str] = []
    while error is not None and len(texts) < 8:
        name = type(error).__name__
        texts.append(f"{name}: {error}" if "AWS" in name else str(error))
        error = error.__cause__ or error.__context__
    return "; ".join(dict.fromkeys(texts))


_STATUS = re.compile(
    r"(?:response_code=|HTTP error code: |HTTP response code: |HTTP response code on \S+ )(\d{3})\b"
)


class _Watch(logging.Filter):
    """Takes secrets out of GDAL's messages on their way to the log, and notes HTTP statuses.

    GDAL says only there which status a failed read had.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        found = _STATUS.search(text)
        if found and int(found[1]) >= 400:
            self._seen[threading.get_ident()] = time.monotonic(), int(found[1])
        record.msg, record.args = redact(text), None
        return True

    def status(self, since: float) -> int | None:
        """The last failing status in this thread from a moment on, or else in any thread.

        GDAL reads a VRT's sources in threads of its own.
        """
        at, status = self._seen.get(threading.get_ident(), (0.0, 0))
        if at < since:
            at, status = max(self._seen.values(), default=(0.0, 0))
        return status if at >= since else None


_WATCH = _Watch()


def _guard_logs() -> None:
    """Put the filter on all of rasterio's loggers; a logger takes the same one only once."""
    for name in [n for n in logging.root.manager.loggerDict if n.split(".")[0] == "rasterio"]:
        logging.getLogger(name).addFilter(_WATCH)
