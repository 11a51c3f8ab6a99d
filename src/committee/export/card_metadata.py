"""The YAML at the head of a model card: what the Hugging Face hub reads of it.

Source: https://huggingface.co/docs/hub/model-cards and, for `model-index`,
https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from committee.folders.records import RunData
from committee.metrics.formatting import interval_text, number
from committee.metrics.results import Interval, Results, Scores
from committee.names import visible

HUB_DATA = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar-10": "uoft-cs/cifar10",
}
"""Data sets by name that are on the hub with the same images and the same split, and their names there."""

TAGS = ("image-classification", "deep-ensemble", "calibration", "uncertainty", "onnx", "committee")
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
ESCAPED = re.compile(
    r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]"
)  # YAML 1.2, 5.1


def front_matter(name: str, data: RunData, results: Results, license_id: str | None) -> str:
    """The head of a card, with the lines of three hyphens around it.

    Args:
        name: of the model.
        data: what it was trained on.
        results: where the figures of `model-index` come from.
        license_id: of the model, as the hub spells it; None states none.
    """
    on_hub = HUB_DATA.get(data.reload.data) if data.reload else None
    dataset: dict[str, JsonValue] = {"name": visible(data.name), "type": on_hub or hub_name(data.name)}
    parts = {"test": results.test, "train": results.out_of_fold}
    head: dict[str, JsonValue] = {
        **({"license": license_id} if license_id else {}),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": list(TAGS),
        **({"datasets": [on_hub]} if on_hub else {}),
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": visible(name),
                "results": [evaluation(part, scores, dataset) for part, scores in parts.items() if scores],
            }
        ],
    }
    return f"---\n{yaml_text(head)}---\n"


def evaluation(part: str, scores: Scores, dataset: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The figures on one part of the data as an entry of `model-index`.

    The entry has no field for what a figure rests on, so that the name of each says it, which the hub shows.
    """
    images, protocol = f"n = {number(scores.images)}", "" if part == "test" else ", out of fold"

    def metric(kind: str, name: str, value: float, interval: Interval | None = None) -> dict[str, JsonValue]:
        certainty = f"; 95 % interval {interval_text(interval)}" if interval else ""
        text = f"{name}{protocol} ({images}{certainty})".replace("\u00a0", " ")
        return {"type": kind, "value": round(value, 6), "name": text}

    probability_metrics = (  # out of fold there are fewer members, whose probabilities are not the model's
        metric("log_loss", "Log-loss in nats", scores.log_loss),
        metric("expected_calibration_error", "Expected calibration error, 15 bins", scores.calibration_error),
    )
    balanced = scores.balanced if scores.is_imbalanced else None
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {**dataset, "split": part},
        "metrics": [
            metric("accuracy", "Accuracy", scores.accuracy, scores.accuracy_interval),
            *(
                [metric("balanced_accuracy", "Balanced accuracy", balanced.accuracy, balanced.accuracy_interval)]
                if balanced
                else []
            ),
            *(probability_metrics if part == "test" else ()),
        ],
    }


def hub_name(name: str) -> str:
    """A data set's name as an identifier that the hub takes."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return plain or "unnamed"


def yaml_text(mapping: Mapping[str, JsonValue]) -> str:
    """A mapping as YAML: block style, every text in double quotes, so that none is taken for something else."""
    return "".join(f"{line}\n" for line in _mapping_lines(mapping))


def _mapping_lines(mapping: Mapping[str, JsonValue]) -> list[str]:
    lines = []
    for key, value in mapping.items():
        name = key if PLAIN.fullmatch(key) else _scalar(key)
        if isinstance(value, dict) and value:
            lines += [f"{name}:", *(f"  {line}" for line in _mapping_lines(value))]
        elif isinstance(value, list) and value:
            lines += [f"{name}:", *_list_lines(value)]
        else:
            lines.append(f"{name}: {_scalar(value)}")
    return lines


def _list_lines(values: Sequence[JsonValue]) -> list[str]:
    lines = []
    for value in values:
        inner = _mapping_lines(value) if isinstance(value, dict) and value else [_scalar(value)]
        lines += [f"- {inner[0]}", *(f"  {line}" for line in inner[1:])]
    return lines


def _scalar(value: JsonValue) -> str:
    """A value on one line; what YAML does not print is escaped, above the 16-bit range with eight digits."""
    if isinstance(value, float):  # YAML 1.1 takes 1e-05 for a text, for want of a point
        return f"{value:.6f}".rstrip("0") + "0" * value.is_integer()
    return ESCAPED.sub(lambda found: _escape(ord(found[0])), json.dumps(value, ensure_ascii=False))


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
