"""Pictures and pages that show a result: the quicklook PNG, the evaluation's table and HTML page.

Pictures are drawn from scenes read thinned out (from their overviews where they have some), so
memory does not grow with the scene. A page is one file that needs nothing from a network.
"""

from __future__ import annotations

import base64
import math
import warnings
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

import geounet
from geounet.errors import ConfigError, SceneError
from geounet.evaluate import METRICS, Estimate
from geounet.products.raster import open_raster, shown
from geounet.staging import whole_file
from geounet.tiling import Window

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geounet.evaluate import Evaluation, SceneScore, SceneView
    from geounet.scene import Scene

__all__ = [
    "COMPOSITES",
    "composite",
    "evaluation_report",
    "evaluation_table",
    "fit_columns",
    "quicklook",
]

COMPOSITES: Mapping[str, tuple[str, str, str]] = {
    "true": ("red", "green", "blue"),
    "swir": ("swir16", "nir", "red"),
    "infrared": ("nir", "red", "green"),
}
"""Which bands are shown as red, green and blue. Water is black in the latter two."""

_LAND, _WATER = (219, 211, 186), (33, 102, 172)
_FALSE, _MISSED, _OBSCURED = (203, 24, 29), (254, 178, 24), (140, 140, 140)
_OUTLINE, _VEIL = (255, 221, 0), (231, 41, 138)
_HATCH = ((244, 244, 244), (222, 222, 222))
_GAP = 8
_MIDDLE = 1 / 3
"""Least median of a picture's brightness."""


# -- pixels ----------------------------------------------------------------------------------------


def composite(
    scene: Scene, kind: str | None = None, *, shape: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """A scene as people see it: RGB uint8 [height, width, 3], what was not observed hatched.

    Each band is stretched from its 2nd to its 98th percentile, and a dark picture is lifted.

    Args:
        scene: the scene.
        kind: a key of `COMPOSITES`; None takes the first whose bands the scene has.
        shape: height and width of the picture; None takes the scene's.

    Raises:
        ConfigError: there is no such composite.
        SceneError: the scene lacks a band of it, or cannot be read.
    """
    bands = [_stand_in(scene, name) for name in _choose(scene, kind)]
    values = _read_thinned(scene, bands, shape or scene.grid.shape)
    seen = ~np.isnan(values[0])
    return np.where(seen[..., None], _stretch(values), _hatch(seen.shape))


def _choose(scene: Scene, kind: str | None) -> tuple[str, str, str]:
    if kind is not None and kind not in COMPOSITES:
        raise ConfigError(f"a composite is one of {', '.join(COMPOSITES)}; got {kind!r}.")
    tried = [COMPOSITES[kind]] if kind else list(COMPOSITES.values())
    for names in tried:
        if all(_stand_in(scene, name) in scene.bands for name in names):
            return names
    raise SceneError(
        f"a picture needs {' or '.join(', '.join(names) for names in tried)}; {scene.uri} has "
        f"{', '.join(scene.bands)}."
    )


def _stand_in(scene: Scene, name: str) -> str:
    return "nir08" if name == "nir" and "nir" not in scene.bands else name


def _read_thinned(
    scene: Scene, bands: Sequence[str], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Reflectance of some pixels spread evenly: float32 [bands, *shape], NaN where not observed."""
    indexes = [scene.bands.index(name) for name in bands]
    out = np.empty((len(indexes), *shape), scene.dtype)
    with scene.open() as reader:
        tile = reader.read(Window(0, 0, *scene.grid.shape), indexes, out=out)
    scale, offset = (
        np.array([values[i] for i in indexes], np.float32)[:, None, None]
        for values in (scene.radiometry.scale, scene.radiometry.offset)
    )
    return np.where(tile.valid, tile.dn.astype(np.float32) * scale + offset, np.float32("nan"))


def _stretch(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bands [3, h, w] → RGB [h, w, 3]: 2nd to 98th percentile of each band → 0 to 255.

    Where that leaves the middle of the picture darker than a third, as clouds do, it is lifted to
    there by one power for all bands.
    """
    seen = ~np.isnan(values[0])
    if not seen.any():
        return np.zeros((*seen.shape, 3), np.uint8)
    low, high = np.percentile(values[:, seen], [2, 98], axis=1)[..., None, None]
    scaled = np.clip((np.nan_to_num(values) - low) / np.maximum(high - low, 1e-6), 0, 1)
    middle = min(max(float(np.median(scaled[:, seen])), 0.01), _MIDDLE)
    lifted = scaled ** (math.log(_MIDDLE) / math.log(middle))
    return np.asarray(np.round(np.moveaxis(lifted, 0, -1) * 255).astype(np.uint8))


def _hatch(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Diagonal stripes, which nothing on Earth is: no colour is free to mean "not observed"."""
    row, col = np.indices(shape, sparse=True)
    return np.asarray(np.array(_HATCH, np.uint8)[(row + col) // 4 % 2])


def _fit(height: int, width: int, side: int) -> tuple[int, int]:
    """The shape with its longer side cut down to ``side``."""
    factor = min(1.0, side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _read_mask(
    scene: Scene, mask: str | os.PathLike[str] | NDArray[np.uint8], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Codes of the same pixels that `_read_thinned` reads.

    Raises:
        SceneError: the mask cannot be read, or is not of the scene's size.
    """
    if isinstance(mask, np.ndarray):
        _check_size(scene, mask.shape)
        rows, cols = (
            ((np.arange(n) + 0.5) * side / n).astype(int)
            for n, side in zip(shape, mask.shape, strict=True)
        )
        return np.asarray(mask[np.ix_(rows, cols)])
    with open_raster(mask, what="mask") as source:
        _check_size(scene, source.shape)
        try:
            return np.asarray(source.read(1, out_shape=shape))
        except RasterioError as error:
            raise SceneError(f"the mask {shown(mask)} cannot be read: {error}.") from error


def _check_size(scene: Scene, shape: tuple[int, ...]) -> None:
    if tuple(shape) != scene.grid.shape:
        raise SceneError(
            f"a mask must have the scene's pixels; {scene.uri} has {scene.grid.shape}, the mask "
            f"{tuple(shape)}."
        )


def _overlay(picture: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Outline the water and tint what is obscured."""
    water = codes == 1
    inside = water.copy()
    for lines, masked in ((inside, water), (inside.T, water.T)):
        lines[1:] &= masked[:-1]
        lines[:-1] &= masked[1:]
    shown = picture.copy()
    shown[codes == 2] = _mix(shown[codes == 2], _VEIL, 0.5)
    shown[inside] = _mix(shown[inside], _WATER, 0.5)
    shown[water & ~inside] = _OUTLINE
    shown[codes == 255] = _hatch(codes.shape)[codes == 255]
    return shown


def _mix(
    pixels: NDArray[np.uint8], colour: tuple[int, int, int], share: float
) -> NDArray[np.uint8]:
    mixed = np.round((1 - share) * pixels + share * np.array(colour))
    return np.asarray(mixed.astype(np.uint8))


def _encode(rgb: NDArray[np.uint8], driver: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    height, width, count = rgb.shape
    options = {"QUALITY": 88} if driver == "JPEG" else {"ZLEVEL": 6}
    with warnings.catch_warnings(), MemoryFile() as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(
            driver=driver, height=height, width=width, count=count, dtype="uint8", **options
        ) as out:
            out.write(np.moveaxis(rgb, -1, 0))
        return bytes(file.read())


def quicklook(
    scene: Scene,
    mask: str | os.PathLike[str] | NDArray[np.uint8],
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    side: int = 1024,
) -> None:
    """Draw a scene and, to its right, the same with its water outlined, as a PNG.

    Water is tinted blue with a yellow outline, obscured pixels pink; what was not observed is
    hatched.

    Args:
        scene: the scene.
        mask: codes on the scene's pixels: a raster's path, or uint8 [height, width].
        path: the PNG.
        kind: a key of `COMPOSITES`; None takes the first whose bands the scene has.
        side: the longer side of each picture in pixels; never more than the scene has.

    Raises:
        SceneError: the scene lacks bands for a picture, a file cannot be read, or the mask is of
            another size.
        ConfigError: there is no such composite.
        OutputError: the PNG cannot be written.
    """
    shape = _fit(*scene.grid.shape, side)
    codes = _read_mask(scene, mask, shape)
    picture = composite(scene, kind, shape=shape)
    gap = np.full((shape[0], _GAP, 3), 255, np.uint8)
    with whole_file(Path(path)) as draft:
        draft.write_bytes(_encode(np.hstack([picture, gap, _overlay(picture, codes)])))


# -- the evaluation as a table ---------------------------------------------------------------------

_COLUMNS = ("Method", "Scene", *METRICS.values(), "Obscured")
_LEFT_OUT_FIRST = (
    *("kappa", "accuracy", "shore_mean", "shore_p95", "shore_bias", "precision", "recall", "f1"),
    *("shore_median", "boundary_iou"),
)


def evaluation_table(evaluation: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows for a terminal: methods by scene, and their mean where there are several.

    IoU carries its interval; the others' are in the HTML page and in `Evaluation.as_dict`.
    """
    rows = [row for method in evaluation.methods for row in _method_rows(evaluation, method)]
    return _COLUMNS, rows


def fit_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, gap: int = 2
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """As many columns of `evaluation_table` as fit into so many characters; IoU always stays."""
    widths = [max(len(row[i]) for row in (header, *rows)) + gap for i in range(len(header))]
    kept = list(range(len(header)))
    for name in _LEFT_OUT_FIRST:
        if sum(widths[i] for i in kept) - gap > width:
            kept.remove(header.index(METRICS[name]))
    return tuple(header[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def _method_rows(evaluation: Evaluation, method: str) -> list[tuple[str, ...]]:
    scores = evaluation.of(method)
    rows = [(method, score.scene, *_score_cells(score)) for score in scores]
    if len(scores) > 1:
        share = _percent(evaluation.confusion(method).obscured_share)
        mean = evaluation.mean(method)
        rows.append((method, _mean_title(scores), *_metric_cells(mean), share))
    return rows


def _mean_title(scores: Sequence[SceneScore]) -> str:
    scored = sum(score.score is not None for score in scores)
    return f"mean of {scored}" + (
        f" (n/a on {len(scores) - scored})" if scored < len(scores) else ""
    )


def _score_cells(score: SceneScore) -> tuple[str, ...]:
    if score.score is None:
        return ("n/a",) * (len(METRICS) + 1)
    share = _percent(score.score.confusion.obscured_share)
    return (*_metric_cells(score.score.metrics), share)


def _metric_cells(metrics: Mapping[str, Estimate]) -> tuple[str, ...]:
    cells = [_figure(name, metrics[name].value) for name in METRICS]
    return (cells[0] + _interval("iou", metrics["iou"]), *cells[1:])


def _figure(name: str, value: float) -> str:
    """Three decimals for a ratio, one for metres; a dash where it is not defined."""
    if math.isnan(value):
        return "-"
    if name == "shore_bias":
        return f"{round(value, 1) + 0.0:+.1f}"
    return f"{value:.1f}" if name.startswith("shore") else f"{value:.3f}"


def _interval(name: str, estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return ""
    return f" [{_figure(name, estimate.low)}, {_figure(name, estimate.high)}]"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


# -- the evaluation as a page ----------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #8884;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
tr.judged td { font-weight: 600; }
small { display: block; font-weight: 400; opacity: .7; white-space: nowrap; }
td.remark { text-align: left; font-weight: 400; opacity: .7; }
td:first-child { white-space: nowrap; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: 1rem; }
figure { margin: 0; flex: 1 1 15rem; max-width: 24rem; } figcaption { font-size: .85rem; }
img { width: 100%; image-rendering: pixelated; border: 1px solid #8884; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .85rem; margin: .6rem 0; }
.key i { display: inline-block; width: .9em; height: .9em; margin-right: .4em;
  border: 1px solid #8888; vertical-align: -.1em; }
code { overflow-wrap: anywhere; }
"""

_NOTES = """
<h2>How to read it</h2>
<ul>
<li>Judged are the pixels whose truth is known. <em>Obscured</em> (cloud, shadow, snow) counts as
  "not water"; its share is given. Known pixels without an answer are counted apart.</li>
<li>Boundary IoU (Cheng et al. 2021) looks at the water within {boundary} pixels of land.</li>
<li>Shore figures are distances in metres from each shoreline to the other, both ways; p95 is the
  distance within which 95% of both lines lie. A bias above 0 means that the predicted water reaches
  too far. They are broken at the frame and at unknown or obscured pixels. Where a scene has no CRS,
  the units of its grid are taken as metres.</li>
<li>Intervals hold {confidence:.0%} of {replicates} bootstrap draws (seed {seed}): of blocks of
  pixels within a scene, of scenes for the overall figures. With few scenes the latter say little.
</li>
<li>n/a: the scene lacks the bands. A dash: the figure is not defined, for want of water
  or shore.</li>
</ul>
"""


def evaluation_report(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write an evaluation as one HTML file: tables with intervals, and pictures of each scene.

    Raises:
        SceneError: a scene can no longer be read.
        OutputError: the page cannot be written.
    """
    settings = evaluation.settings
    notes = _NOTES.format(
        boundary=settings.boundary,
        confidence=settings.confidence,
        replicates=settings.replicates,
        seed=settings.seed,
    )
    title = f"Evaluation of {evaluation.model or evaluation.methods[0]}"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{escape(title)}</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>",
        _provenance(evaluation),
        "<h2>Mean over scenes</h2>",
        _overall(evaluation),
        *[_scene_section(evaluation, view) for view in evaluation.views],
        notes,
        "</body></html>",
    ]
    with whole_file(Path(path)) as draft:
        draft.write_text("\n".join(parts), encoding="utf-8")


def _provenance(evaluation: Evaluation) -> str:
    digest = f", SHA-256 <code>{evaluation.model_sha256}</code>" if evaluation.model_sha256 else ""
    scenes = len(evaluation.scenes)
    return f"<p>{scenes} scenes, geounet {geounet.__version__}{digest}</p>"


def _overall(evaluation: Evaluation) -> str:
    """Mean over scenes, worst scene, and all pixels together."""
    header = ["Method", "Scenes", "Worst IoU", "IoU, all pixels"]
    rows = []
    for method in evaluation.methods:
        scored = [score for score in evaluation.of(method) if score.score]
        mean = evaluation.mean(method)
        pooled = evaluation.pooled(method).get("iou", Estimate(math.nan))
        cells = [
            escape(method),
            str(len(scored)),
            _figure("iou", evaluation.worst(method)),
            _cell("iou", pooled),
            *[_cell(name, mean[name]) for name in METRICS],
            _percent(evaluation.confusion(method).obscured_share),
        ]
        rows.append(cells)
    return _html_table([*header, *METRICS.values(), "Obscured"], rows)


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; the first row is the judged method's."""
    head = "".join(f"<th scope='col'>{text}</th>" for text in header)
    body = "".join(
        f"<tr{' class=judged' if i == 0 else ''}>{_html_cells(row, len(header))}</tr>"
        for i, row in enumerate(rows)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='scroll'>{table}</div>"


def _html_cells(row: Sequence[str], columns: int) -> str:
    """Cells of a row; one that has fewer has a remark in its last."""
    cells = [f"<td>{cell}</td>" for cell in row]
    if len(row) < columns:
        cells[-1] = f"<td class=remark colspan={columns - len(row) + 1}>{row[-1]}</td>"
    return "".join(cells)


def _cell(name: str, estimate: Estimate) -> str:
    small = _interval(name, estimate)
    return _figure(name, estimate.value) + (f"<small>{small.strip()}</small>" if small else "")


def _scene_section(evaluation: Evaluation, view: SceneView) -> str:
    scores = [score for score in evaluation.scores if score.scene == view.name]
    rows = [[escape(score.method), *_scene_cells(score)] for score in scores]
    counts = ["TP", "FP", "FN", "TN", "No answer"]
    header = ["Method", *METRICS.values(), "Obscured", *counts]
    grid = view.scene.grid
    about = f"{grid.width} x {grid.height} pixels, bands {', '.join(view.scene.bands)}"
    return "\n".join(
        [
            f"<h2>{escape(view.name)}</h2><p>{escape(about)}</p>",
            _html_table(header, rows),
            _pictures(view, evaluation.methods[0]),
        ]
    )


def _scene_cells(score: SceneScore) -> list[str]:
    if score.score is None:
        return [f"n/a: {escape(score.note)}"]
    counts = score.score.confusion
    return [
        *[_cell(name, score.score.metrics[name]) for name in METRICS],
        _percent(counts.obscured_share),
        *[f"{n:,}" for n in (counts.tp, counts.fp, counts.fn, counts.tn, counts.unobserved)],
    ]


def _pictures(view: SceneView, method: str) -> str:
    shape = (view.truth.shape[0], view.truth.shape[1])
    pictures = [_figure_tag(title, rgb, "JPEG") for title, rgb in _composites(view.scene, shape)]
    pictures.append(_figure_tag("Truth", _paint(_mask_classes(view.truth)), "PNG"))
    if view.prediction is not None:
        prediction = _paint(_mask_classes(view.prediction))
        errors = _paint(_error_classes(view.truth, view.prediction))
        pictures += [_figure_tag(method, prediction, "PNG"), _figure_tag("Errors", errors, "PNG")]
    return f"<div class='pictures'>{''.join(pictures)}</div>{_key()}"


def _composites(scene: Scene, shape: tuple[int, int]) -> list[tuple[str, NDArray[np.uint8]]]:
    """True colour and short-wave infrared, as far as the scene has the bands."""
    titles = {"true": "True colour", "swir": "Short-wave infrared", "infrared": "Infrared"}
    found: list[tuple[str, NDArray[np.uint8]]] = []
    for kind, title in titles.items():
        if len(found) < 2 and all(_stand_in(scene, n) in scene.bands for n in COMPOSITES[kind]):
            found.append((title, composite(scene, kind, shape=shape)))
    return found


def _figure_tag(title: str, rgb: NDArray[np.uint8], driver: Literal["PNG", "JPEG"]) -> str:
    data = base64.b64encode(_encode(rgb, driver)).decode()
    text = escape(title, quote=True)
    return (
        f"<figure><img alt='{text}' src='data:image/{driver.lower()};base64,{data}'>"
        f"<figcaption>{text}</figcaption></figure>"
    )


_CLASSES = {
    "land": _LAND,
    "water": _WATER,
    "false water": _FALSE,
    "missed water": _MISSED,
    "obscured": _OBSCURED,
    "missed water, said to be obscured": (115, 85, 30),
    "unknown or no answer": (255, 255, 255),
}


def _mask_classes(codes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Index into `_CLASSES` of a truth or an answer."""
    table = np.full(256, 6)
    table[[0, 1, 2]] = 0, 1, 4
    return np.asarray(table[codes])


def _error_classes(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Index into `_CLASSES`: right answers by class, wrong ones by kind."""
    table = np.array([[0, 2, 4, 6], [3, 1, 5, 6], [6, 6, 6, 6]])
    return np.asarray(table[np.minimum(truth, 2), np.minimum(prediction, 3)])


def _paint(classes: NDArray[np.intp]) -> NDArray[np.uint8]:
    return np.array(list(_CLASSES.values()), np.uint8)[classes]


def _key() -> str:
    entries = [
        f"<span><i style='background:rgb{colour}'></i>{name}</span>"
        for name, colour in _CLASSES.items()
    ]
    return f"<div class='key'>{''.join(entries)}</div>"
