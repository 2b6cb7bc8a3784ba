"""Judge the default model on a folder of labelled scenes, and write what its card needs.

    python pipelines/evaluate_default.py FOLDER --output evaluation

FOLDER holds NAME.tif with NAME.label.tif (0 land, 1 water, 255 unknown; the band "hand" is taken
where there is one). The output folder gets

    evaluation.html  tables with intervals, and pictures of each scene
    evaluation.json  the same figures for machines
    evaluation.md    IoU by scene and band pattern, beside the spectral indices, for the card
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from geounet.evaluate import BAND_PATTERNS, Evaluation, Progress, Settings, evaluate
from geounet.labels import LabelRules
from geounet.report import evaluation_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geounet.evaluate import Estimate


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    found = evaluate(
        options.model,
        options.folder,
        band_patterns=tuple(BAND_PATTERNS),
        device=options.device,
        settings=Settings(labels=LabelRules(band=options.label_band), seed=options.seed),
        on_progress=show,
    )
    record = json.dumps(found.as_dict(), indent=2, allow_nan=False)
    (options.output / "evaluation.json").write_text(record + "\n", encoding="utf-8")
    (options.output / "evaluation.md").write_text(markdown(found), encoding="utf-8")
    evaluation_report(found, options.output / "evaluation.html")
    print(markdown(found))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge the default model on labelled scenes.")
    parser.add_argument("folder", type=Path, help="NAME.tif with NAME.label.tif")
    parser.add_argument("--output", type=Path, default=Path("evaluation"))
    parser.add_argument("--model", default="default", help="a model's name or file")
    parser.add_argument("--label-band", help="description of the labels' band")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals' draws")
    return parser.parse_args(arguments)


def show(at: Progress) -> None:
    print(f"{at.done}/{at.total} {at.scene}", file=sys.stderr)


def markdown(found: Evaluation) -> str:
    """IoU of water with its interval: a row a scene and one for the mean, a column a method."""
    rows = [["scene", *found.methods], ["---"] * (1 + len(found.methods))]
    for scene in found.scenes:
        scores = [score for score in found.scores if score.scene == scene]
        cells = [cell(s.score.metrics["iou"]) if s.score else "n/a" for s in scores]
        rows.append([scene, *cells])
    rows.append(["mean over scenes", *[cell(found.mean(m)["iou"]) for m in found.methods]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def cell(iou: Estimate) -> str:
    if math.isnan(iou.low):
        return "n/a" if math.isnan(iou.value) else f"{iou.value:.3f}"
    return f"{iou.value:.3f} ({iou.low:.3f} to {iou.high:.3f})"


if __name__ == "__main__":
    main()
