"""Committees of small convolutional networks for small labelled images.

>>> import committee
>>> dataset = committee.load_dataset("mnist-5k")
>>> results = committee.train(dataset, committee.load_recipe("standard"), "runs/first")
>>> results.test.accuracy, results.test.accuracy_interval
>>> committee.load("runs/first").predict(images)

The names below are loaded when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from committee.errors import torch_needed_said
from committee.version import version

if TYPE_CHECKING:
    from committee.config.recipe import Recipe
    from committee.config.recipe_parsing import load as load_recipe
    from committee.config.study import load as load_study
    from committee.data.catalog import load_dataset
    from committee.data.dataset import ImageDataset
    from committee.data.to_classify import read_images
    from committee.ensemble.classifier import Classifier, load
    from committee.ensemble.committee import Committee
    from committee.errors import CommitteeError
    from committee.metrics.results import Results
    from committee.runs.comparison import compare_runs
    from committee.runs.run import evaluate, train
    from committee.sklearn import CommitteeClassifier
    from committee.studies.run import run_study
    from committee.training.setting import Setting

__version__ = version

_PLACES = {
    "Classifier": "ensemble.classifier",
    "Committee": "ensemble.committee",
    "CommitteeClassifier": "sklearn",
    "CommitteeError": "errors",
    "ImageDataset": "data.dataset",
    "Recipe": "config.recipe",
    "Results": "metrics.results",
    "Setting": "training.setting",
    "compare_runs": "runs.comparison",
    "evaluate": "runs.run",
    "load": "ensemble.classifier",
    "load_dataset": "data.catalog",
    "load_recipe": "config.recipe_parsing:load",
    "load_study": "config.study:load",
    "read_images": "data.to_classify",
    "run_study": "studies.run",
    "train": "runs.run",
}

__all__ = [
    "Classifier",
    "Committee",
    "CommitteeClassifier",
    "CommitteeError",
    "ImageDataset",
    "Recipe",
    "Results",
    "Setting",
    "compare_runs",
    "evaluate",
    "load",
    "load_dataset",
    "load_recipe",
    "load_study",
    "read_images",
    "run_study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'committee' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    with torch_needed_said():
        return getattr(import_module(f"committee.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
