"""Commands about models: train, audit, evaluate, models."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geounet.cli.application import app
from geounet.cli.options import (
    AsJson,
    LabelBand,
    LabelValues,
    Offset,
    Outside,
    Outsides,
    Scale,
    band_of,
    label_meaning,
    names,
)
from geounet.cli.show import print_json, print_table, progress_bar, say, terminal_width
from geounet.errors import GeounetWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from geounet.evaluate import Evaluation
    from geounet.labels import LabelRules
    from geounet.model import Model
    from geounet.training import Audit, TrainConfig, TrainProgress, TrainResult


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file.", show_default="flags alone")
    ] = None,
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of NAME.tif with NAME.label.tif or NAME.gpkg; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write to, or to go on in."),
    ] = None,
    valid: Annotated[
        list[Path] | None,
        typer.Option(help="The same for validation.", show_default="a fifth of the sites"),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(help="Keep back the sites of one fold for validation: 2/5.", metavar="N/OF"),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands to use, e.g. B02,B03,B04,B08.", show_default="the scenes'"),
    ] = None,
    scale: Scale = None,
    offset: Offset = None,
    label_band: LabelBand = None,
    label_value: LabelValues = None,
    outside: Outside = None,
    decoder: Annotated[
        str | None, typer.Option(help="Unet, UnetPlusPlus, DeepLabV3Plus, …, unet2015.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="resnet18, densenet121, tu-mobilenetv4_conv_small, …")
    ] = None,
    start: Annotated[str | None, typer.Option(help="A model to start from.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="bce, dice, bce_dice, focal, lovasz, lovasz_hinge, cross_entropy, border, partial."
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train for.")] = None,
    epochs: Annotated[float | None, typer.Option(help="The same, in passes over the data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows at once.")] = None,
    window: Annotated[int | None, typer.Option(help="Side of a window in pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything that is drawn.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other key of the TOML file: loss.gamma=1.5; repeatable."),
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Train a model on labelled scenes. Run it again to go on with one that was interrupted."""
    plan = _training_plan(dict(locals()))
    from geounet.training import fitting  # noqa: PLC0415 - torch takes a second to load

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    if not first:  # what it would say, the first says too
        warnings.simplefilter("ignore", GeounetWarning)
    with progress_bar(hidden=quiet or as_json or not first, unit="steps") as bar:
        quietly = bar is None and (quiet or as_json)
        result = fitting.train(plan, on_progress=None if quietly else bar or _log)
    if first and (not quiet or as_json):
        say(result.as_dict() if as_json else _training_record(result), as_json=as_json)


_PLAIN_SETTINGS = (
    "data", "output", "valid", "scale", "offset", "start", "steps", "epochs", "batch", "window",
    "seed", "device",
)  # fmt: skip
"""Flags of `train` that are keys of its file as they are."""


def _training_plan(given: Mapping[str, Any]) -> TrainConfig:
    """What flags and ``--set`` say, which stands above the file where there is one."""
    from geounet.training import config as settings  # noqa: PLC0415 - keeps --help fast

    fold, outside = given["fold"], given["outside"]
    told = {name: given[name] for name in _PLAIN_SETTINGS} | {
        "fold": fold and fold.split("/"),
        "bands": names(given["bands"]),
        "label_band": band_of(given["label_band"]),
        **label_meaning(given["label_value"]),
        "outside": outside and outside.value,
        "architecture": _given(decoder=given["decoder"], encoder=given["encoder"]),
        "loss": _given(name=given["loss"]),
        "optimiser": _given(rate=given["rate"]),
    }
    told = {key: value for key, value in told.items() if value not in (None, {}, [])}
    for text in given["setting"] or []:
        told = settings.joined(told, settings.parse_setting(text))
    if given["config"] is None:
        return settings.TrainConfig.of(**told)
    return settings.read_config(given["config"], **told)


def _log(at: TrainProgress) -> None:
    typer.echo(at.line, err=True)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _training_record(result: TrainResult) -> dict[str, Any]:
    return {
        "steps": f"{result.steps}" + (" (stopped early)" if result.stopped_early else ""),
        **{name: f"{value:.4f}" for name, value in result.metrics.items()},
        "learned": ", ".join(result.train),
        "validated on": ", ".join(result.valid) or "nothing",
        "time": f"{result.seconds:.1f} s",
        **{kind: str(path) for kind, path in result.outputs.items()},
    }


@app.command()
def audit(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of NAME.tif with NAME.label.tif or NAME.gpkg.")
    ],
    *,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write (PNG): scenes beside their labels.")
    ] = None,
    scale: Scale = None,
    offset: Offset = None,
    label_band: LabelBand = None,
    label_value: LabelValues = None,
    outside: Outside = None,
    as_json: AsJson = False,
) -> None:
    """Check labels before training: against water indices, swapped classes, shifts, unknown."""
    from geounet.staging import check_free  # noqa: PLC0415 - keeps --help fast
    from geounet.training import auditing  # noqa: PLC0415

    if sheet:
        check_free({"sheet": sheet}, overwrite=True)
    rules = _label_rules(label_band, label_value, outside)
    with progress_bar(hidden=as_json, unit="scenes") as on_progress:
        found = auditing.audit(
            *folders, sheet=sheet, rules=rules, scale=scale, offset=offset, on_progress=on_progress
        )
    if as_json:
        say(found.as_dict(), as_json=True)
    else:
        _print_audit(found)


def _label_rules(
    band: str | None, values: list[str] | None, outside: Outsides | None
) -> LabelRules:
    from geounet.labels import UNKNOWN, LabelRules  # noqa: PLC0415 - keeps --help fast

    told = label_meaning(values)
    return LabelRules(
        values=told.get("label_values"),
        ignored=told.get("ignore_values", (UNKNOWN,)),
        outside=outside.value if outside else "auto",
        band=band_of(band),
    )


def _print_audit(found: Audit) -> None:
    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    rows = [
        (
            check.scene,
            f"{check.size[0]} x {check.size[1]}",
            share(check.water),
            share(check.unknown),
            share(check.ndwi),
            share(check.mndwi),
            number(check.correlation),
            "" if check.shift is None else f"{check.shift[0]}, {check.shift[1]}",
            "; ".join(check.remarks),
        )
        for check in found.checks
    ]
    header = ("scene", "size", "water", "unknown", "NDWI", "MNDWI", "r", "shift", "remarks")
    print_table(header, rows, right=range(1, 8), bold=lambda row: bool(row[-1]))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model's name or file.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder of NAME.tif with NAME.label.tif or NAME.gpkg; or a scene with --label."
        ),
    ],
    *,
    label: Annotated[
        Path | None, typer.Option(help="The label of a single scene: a raster or polygons.")
    ] = None,
    scale: Scale = None,
    offset: Offset = None,
    label_band: LabelBand = None,
    label_value: LabelValues = None,
    outside: Outside = None,
    patterns: Annotated[
        bool, typer.Option("--patterns", help="Judge again with 12, 10, 6 and 4 bands only.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write an HTML page with pictures.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the intervals' draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Judge a model on labelled scenes, beside NDWI, MNDWI and Otsu's threshold."""
    from geounet import evaluate as judge  # noqa: PLC0415 - keeps --help fast
    from geounet.labels import Pair  # noqa: PLC0415
    from geounet.scene import open_scene  # noqa: PLC0415
    from geounet.staging import check_free  # noqa: PLC0415

    if report:
        check_free({"report": report}, overwrite=True)
    rules = _label_rules(label_band, label_value, outside)
    pairs = [Pair(open_scene(data, scale=scale, offset=offset), label)] if label else data
    with progress_bar(hidden=as_json, unit="masks") as on_progress:
        found = judge.evaluate(
            model,
            pairs,
            scale=scale,
            offset=offset,
            band_patterns=tuple(judge.BAND_PATTERNS) if patterns else (),
            device=device,
            settings=judge.Settings(labels=rules, seed=seed),
            on_progress=on_progress,
        )
    if as_json:
        say(found.as_dict(), as_json=True)
    else:
        _print_evaluation(found)
    if report:
        from geounet.report import evaluation_report  # noqa: PLC0415

        evaluation_report(found, report)


def _print_evaluation(found: Evaluation) -> None:
    from geounet.report import evaluation_table, fit_columns  # noqa: PLC0415 - keeps --help fast

    header, rows = fit_columns(*evaluation_table(found), terminal_width())
    for score in found.of(found.methods[0]):
        if score.score is None:
            typer.echo(f"geounet: warning: {score.scene} was not judged: {score.note}", err=True)
    right = range(2, len(header))
    print_table(header, rows, right=right, bold=_is_first(found))
    if "Kappa" not in header:
        typer.echo("A wider terminal, --json and --report show more columns.", err=True)
    typer.echo()
    judged = [name for name in found.methods if any(s.score for s in found.of(name))]
    counts = [(name, found.confusion(name)) for name in judged]
    print_table(
        ("pixels of all scenes", "water found", "water missed", "land found", "false water", "IoU"),
        [
            (name, *(f"{n:,}" for n in (c.tp, c.fn, c.tn, c.fp)), f"{c.iou:.3f}")
            for name, c in counts
        ],
        right=range(1, 6),
        bold=_is_first(found),
    )


def _is_first(found: Evaluation) -> Callable[[Sequence[str]], bool]:
    return lambda row: row[0] == found.methods[0]


@app.command()
def models(
    model: Annotated[
        str | None, typer.Argument(help="A model's name or file.", show_default="all that ship")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the contract of a model: what it takes and gives, and where it comes from."""
    from geounet.model import load_model, shipped_models  # noqa: PLC0415 - keeps --help fast

    found = [load_model(name) for name in ([model] if model else shipped_models())]
    if as_json:
        records = [{**each.spec.model_dump(mode="json"), "sha256": each.digest} for each in found]
        print_json(records[0] if model else records)
        return
    for each in found:
        say(_contract(each), as_json=False)


def _contract(model: Model) -> dict[str, Any]:
    """A model's contract for people, without what only the network needs."""
    spec = model.spec
    multiple, remainder = spec.tile_multiple, spec.tile_remainder
    return {
        "model": f"{spec.name} {spec.version}",
        "network": " with ".join(
            filter(None, (spec.architecture.decoder, spec.architecture.encoder))
        ),
        "needs": ", ".join(band.name for band in spec.bands if band.required),
        "uses": ", ".join(band.name for band in spec.bands if not band.required),
        "classes": ", ".join(spec.classes),
        "pixels": f"of {spec.gsd[0]:g} to {spec.gsd[1]:g} m",
        "tile": f"{spec.tile}, overlap {spec.overlap} (or any multiple of {multiple}"
        + (f" plus {remainder})" if remainder else ")"),
        "licence": spec.licence or "not stated",
        **{name: f"{value:.4f}" for name, value in spec.metrics.items()},
        "learned from": "; ".join(spec.sources).replace(":;", ":") or "not stated",
        "sha256": model.digest,
    }
