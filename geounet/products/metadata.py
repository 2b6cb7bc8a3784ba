"""Reading products' own metadata files: XML, and Landsat's MTL in its three forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias
from xml.etree import ElementTree as ET

from geounet.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Groups", "local_name", "parse_mtl", "parse_xml", "text_of"]

Groups: TypeAlias = dict[str, dict[str, str]]
"""A Landsat metadata file: group → name → value."""


def parse_xml(data: bytes, name: str) -> ET.Element:
    """Parse a product's XML.

    A document type is refused before parsing: no product has one, and what can be done with one is
    to define entities that grow without bound or point elsewhere.

    Raises:
        SceneError: it is damaged, or has a document type.
    """
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data:
        raise SceneError(
            f"metadata must be plain XML in UTF-8; {name} has a document type or is in another "
            f"encoding. It is no product as any archive gives it out; do not trust it."
        )
    try:
        return ET.fromstring(data)  # noqa: S314 - no document type, so no entities
    except ET.ParseError as error:
        raise SceneError(
            f"cannot read {name}: {error}. It is truncated or damaged; get the product again."
        ) from error


def local_name(element: ET.Element) -> str:
    """An element's name without its namespace, which differs between product versions."""
    return element.tag.rsplit("}", 1)[-1]


def text_of(root: ET.Element, name: str) -> str | None:
    """Text of the first element of a name, wherever it stands; None where there is none."""
    texts = (e.text.strip() for e in root.iter() if local_name(e) == name and e.text)
    return next(texts, None)


def parse_mtl(data: bytes, name: str) -> Groups:
    """Parse a Landsat Collection 2 metadata file, by its name's ending .txt, .xml or .json.

    Raises:
        SceneError: it is damaged.
    """
    try:
        if name.lower().endswith(".xml"):
            return _groups_of_xml(parse_xml(data, name))
        if name.lower().endswith(".json"):
            return dict(_groups_of_json(json.loads(data)))
        return _groups_of_text(data.decode("utf-8"))
    except (ValueError, LookupError, RuntimeError, AttributeError) as error:
        raise SceneError(
            f"cannot read {name}: {error}. It is truncated or damaged; get the product again."
        ) from error


def _groups_of_xml(root: ET.Element) -> Groups:
    return {
        local_name(group): {local_name(item): (item.text or "").strip() for item in group}
        for group in root
    }


def _groups_of_json(found: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """The groups below the one that holds everything."""
    for group, items in next(iter(found.values())).items():
        yield group, {key: str(value) for key, value in items.items()}


def _groups_of_text(text: str) -> Groups:
    """``GROUP = name`` … ``END_GROUP = name`` with ``key = value`` between."""
    groups: Groups = {}
    open_groups: list[str] = []
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            open_groups.append(value)
        elif key == "END_GROUP":
            open_groups.pop()
        elif value and open_groups:
            groups.setdefault(open_groups[-1], {})[key] = value.strip('"')
    if not groups or open_groups:
        raise ValueError("its groups are not closed")
    return groups
