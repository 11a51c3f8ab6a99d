"""The cost model: what it foretells agrees with a simulation, and with a real run on this machine."""

from __future__ import annotations

import math
import time
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from committee.cli import plan
from committee.cli.main import main
from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, LabelledImages, open_test
from committee.metrics.formatting import duration
from committee.runs import cost, evaluation, run
from committee.runs.cluster import Member, Nodes, makespan
from committee.runs.forecast import NODES, Assumptions, CostModel, PlanReport, plan_costs
from committee.runs.simulation import simulate
from committee.runs.trial import EndCosts, TrainingCosts
from committee.terminal import console
from committee.training.setting import Setting
from committee.training.state import Task

COSTS = TrainingCosts(2, 1e-3, 8e-4, 3e-4, 3e-4, 3.0, 1e-8, 300_000_000, 60_000_000)


def test_the_formula_agrees_with_a_simulation_in_which_nodes_fail() -> None:
    """Within a tenth, on the mean of many simulations, from 1 to 1,000 members on 1 to 200 workers."""
    for members, (count, workers), mtbf, seconds, spread in product(
        (1, 7, 10, 100, 1_000), ((1, 2), (10, 2), (100, 2)), (math.inf, 86_400.0, 14_400.0), (600.0, 3_600.0), (0.03,)
    ):
        nodes, member = Nodes(count, workers, mtbf, spread=spread), Member(seconds)
        foretold = makespan(members, member, nodes)
        found = [simulate(members, member, nodes, seed) for seed in range(40 if members * count <= 1_000 else 4)]
        where = f"{members} members of {seconds} s on {nodes}"
        assert foretold.seconds == pytest.approx(fmean(each.seconds for each in found), rel=0.1), where
        assert foretold.busy == pytest.approx(fmean(each.busy for each in found), rel=0.05), where


def test_the_simulation_repeats_by_its_key_and_failures_only_cost() -> None:
    member, nodes = Member(600.0), Nodes(5, 2, mtbf=7_200.0)
    assert simulate(100, member, nodes, 3) == simulate(100, member, nodes, 3)
    assert simulate(100, member, nodes, 3) != simulate(100, member, nodes, 4)
    sound = simulate(100, member, Nodes(5, 2), 3)
    assert sound.failures == sound.died == 0
    assert simulate(100, member, nodes, 3).seconds > sound.seconds
    rarely = [simulate(20, Member(6_000.0, checkpoint=30.0), nodes, seed) for seed in range(20)]
    never = [simulate(20, Member(6_000.0, checkpoint=1e9), nodes, seed) for seed in range(20)]
    assert fmean(each.seconds for each in never) > 1.2 * fmean(each.seconds for each in rarely)  # what checkpoints save


def test_members_that_lose_their_node_three_times_are_counted() -> None:
    member, nodes = Member(7_200.0), Nodes(20, 1, mtbf=7_200.0)
    foretold = makespan(20, member, nodes)
    found = fmean(simulate(20, member, nodes, seed).died for seed in range(60))
    assert foretold.died == pytest.approx(20 * (1 - 2.5 / math.e), rel=1e-6)
    assert found == pytest.approx(foretold.died, rel=0.35)


def test_the_work_of_a_member_is_that_of_the_training_loop(digits: ImageDataset, small_recipe: Recipe) -> None:
    """Counted as `Task` counts it, which the loop follows."""
    recipe = small_recipe.model_copy(update={"training": small_recipe.training.model_copy(update={"epochs": 7})})
    images = len(digits.train)
    validation = np.arange(round(images * cost.validation_share(recipe)))
    task = Task(recipe, 0, 0, np.arange(len(validation), images), validation, 10, "cpu", "float32")
    work, epochs = cost.work_of(recipe, images), range(1, 8)
    assert work.augmented == sum(len(task.train) for epoch in epochs if task.augmented(epoch))
    assert work.augmented + work.plain == 7 * len(task.train)
    assert work.statistics == sum(len(task.train) for epoch in epochs if task.steps_before(epoch + 1) <= 100)
    assert work.predicted == 7 * len(validation) + images


NOTHING_ASSUMED = Assumptions()


def model(recipe: Recipe, assumptions: Assumptions = NOTHING_ASSUMED, images: int = 60_000) -> CostModel:
    sizes = cost.Sizes(images, 10_000, 784, 10, 144_314, 6_228_608)
    return CostModel(recipe, sizes, COSTS, EndCosts(4.0, 5e-9, 3e-8, 350_000_000), 2, 3.0, assumptions=assumptions)


def test_forecasts_grow_as_they_should(small_recipe: Recipe) -> None:
    few, many = model(small_recipe), model(small_recipe, images=600_000)
    for members in (1, 10, 100):
        assert many.forecast(members, 1).seconds > 5 * few.forecast(members, 1).seconds - 60
        assert few.forecast(members, 10).seconds <= few.forecast(members, 1).seconds + 1
        one, ten = few.forecast(members, 1), few.forecast(members, 10)
        assert one.unit_hours <= ten.unit_hours
        assert 0 <= one.idle <= ten.idle <= 1
    assert few.forecast(3, 1).idle == pytest.approx(0.25, abs=0.03)  # the last wave's second worker
    alone = few.forecast(1, 1)
    parts = (alone.loading_seconds, alone.data_seconds, alone.training_seconds, alone.collecting_seconds)
    assert alone.seconds == pytest.approx(sum(parts) + alone.end_seconds)
    assert alone.money is None
    assert few.forecast(1_000, 1).first_node_bytes > few.forecast(1_000, 10).node_bytes  # all members' probabilities
    paid = model(small_recipe, Assumptions(price=0.5, watts=100.0)).forecast(10, 3)
    assert few.forecast(1, 1).first_node_bytes > 350_000_000  # what draws the page is there, too
    assert paid.money == pytest.approx(0.5 * paid.unit_hours)
    assert paid.kilowatt_hours == pytest.approx(0.1 * paid.unit_hours / 2)
    failing = model(small_recipe, Assumptions(mtbf=3_600.0)).forecast(100, 10)
    assert failing.seconds > few.forecast(100, 10).seconds
    assert failing.failures > 0


def test_the_command_measures_without_the_test_images_and_shows_its_forecast(
    digits: ImageDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = []

    def noted(*what: Any, **more: Any) -> LabelledImages:
        opened.append(open_test(*what, **more))
        return opened[-1]

    monkeypatch.setattr(evaluation, "open_test", noted)
    arguments = ["plan", "standard", "--data", "digits", "--members", "3", "--epochs", "2", "--workers", "1", "--json"]
    arguments += ["--set", "network.widths=[8,8,8]", "--nodes", "2", "--mtbf", "24h", "--price", "0.04"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    known = {image.tobytes() for image in digits.train.pixels}
    assert {image.tobytes() for images in opened for image in images.pixels} <= known
    report = PlanReport.model_validate_json(result.stdout)
    assert (report.planned.members, report.planned.nodes) == (3, 2)
    assert [(each.members, each.nodes) for each in report.table] == list(product((1, 10, 100, 1_000), NODES))
    said = "\n".join((*plan.head_lines(report), *plan.closing_lines(report)))
    for words in ("1 member at a time", "3 members on 2 nodes", "cost 0.0", "every 24 hours", "multiply-adds"):
        assert words in said
    console(width=80).print(plan.forecast_table(report))
    table = capsys.readouterr().out
    assert "\u2026" not in table  # nothing is cut off
    assert duration(report.table[-1].seconds) in table


@pytest.mark.alone
def test_a_real_run_takes_what_was_foretold(digits: ImageDataset, small_recipe: Recipe, tmp_path: Path) -> None:
    setting = Setting(workers=1)
    foretold = plan_costs(digits, small_recipe, setting).planned
    began = time.perf_counter()
    run.train(digits, small_recipe, tmp_path / "run", setting)
    taken = time.perf_counter() - began
    assert 0.5 < taken / foretold.seconds < 2  # bench/plan.py measures it on a machine at rest
