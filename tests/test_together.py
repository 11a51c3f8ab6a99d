"""Few images go through all members in recorded programs, with the bits that many images have."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from committee import kernels
from committee.config import recipe_parsing as recipes
from committee.ensemble.committee import FEW_IMAGES, Committee
from committee.errors import RunError
from committee.kernels import binding
from committee.kernels.programs import Programs, record
from committee.nn import devices
from committee.nn.architectures import build
from committee.nn.inference import member_probabilities
from committee.nn.views import FURTHER, View, Views, seen

IMAGES = np.random.default_rng(0).integers(
    0, 256, (FEW_IMAGES + 4, 28, 28, 1), dtype=np.uint8
)  # so many go another way
RECIPES = [("ensemble-cnn", ""), ("standard", ""), ("standard", "network.backbone=vgg network.widths=[16,32,64]")]


def three_members(name: str = "ensemble-cnn", changes: str = "", tta: str = "none") -> Committee:
    network = recipes.load(name, changes.split()).network
    members = [build(network, (1, 28, 28), 10, torch.Generator().manual_seed(seed)).eval() for seed in range(3)]
    last = [member.to(memory_format=torch.channels_last) for member in members]  # type: ignore[call-overload]
    name, _, unsure = tta.partition(" where ")
    confidence = 0.6 if unsure else 1.0
    return Committee(
        tuple(last), tuple("0123456789"), (28, 28, 1), 255, precision="bfloat16", tta=name, tta_confidence=confidence
    )


@pytest.mark.parametrize(("name", "changes"), RECIPES, ids=["ensemble-cnn", "standard", "vgg"])
@pytest.mark.parametrize("tta", ["none", "horizontal_flip", "shifts where unsure"])
def test_few_images_have_the_bits_of_many(path: str, name: str, changes: str, tta: str) -> None:
    committee = three_members(name, changes, tta)
    many = committee.member_probabilities(IMAGES)
    assert committee.together is not None
    for number in (1, 2, FEW_IMAGES - 1):
        for first in (0, 4):
            few = committee.member_probabilities(IMAGES[first : first + number])
            assert np.array_equal(few, many[:, first : first + number])


def test_the_bits_do_not_depend_on_the_number_of_cores(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    committee, found = three_members(), []
    for cores in (1, 2, 5):
        monkeypatch.setattr(devices, "cores", lambda cores=cores: cores)
        found.append(committee.member_probabilities(IMAGES[:3]))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_changed_weights_and_statistics_are_followed(path: str) -> None:
    committee = three_members("standard")
    before = committee.member_probabilities(IMAGES[:1])
    with torch.no_grad():
        for tensor in committee.networks[1].state_dict().values():
            if tensor.is_floating_point() and tensor.ndim:
                tensor.mul_(1.1)
    few, many = committee.member_probabilities(IMAGES[:1]), committee.member_probabilities(IMAGES)
    assert np.array_equal(few, many[:, :1])
    assert [np.array_equal(*each) for each in zip(few, before, strict=True)] == [True, False, True]


def test_callers_in_several_threads_get_their_own_images(path: str) -> None:
    committee = three_members()
    many = committee.member_probabilities(IMAGES)
    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(lambda n: committee.member_probabilities(IMAGES[n : n + 1]), [*range(len(IMAGES))] * 10))
    assert all(np.array_equal(found[:, 0], many[:, n % len(IMAGES)]) for n, found in enumerate(each))


def test_a_process_forked_after_a_prediction_predicts(path: str) -> None:
    """As servers do; no thread of its parent's is missed there."""
    committee = three_members()
    mine = committee.predict_proba(IMAGES[:1])
    if (child := os.fork()) == 0:
        os._exit(not np.array_equal(committee.predict_proba(IMAGES[:1]), mine))
    assert os.waitpid(child, 0)[1] == 0


def test_where_torch_computes_a_part_members_predict_one_after_the_other(path: str) -> None:
    committee = three_members("standard", "network.widths=[24,40,40]")  # widths that have no kernel
    assert committee.together is None
    assert np.array_equal(committee.member_probabilities(IMAGES[:1]), committee.member_probabilities(IMAGES)[:, :1])
    assert replace(three_members(), precision="float32").together is None


def test_what_is_not_kernels_work_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that torch computes within a chain would answer with the recorded image's values."""
    pool: Callable[..., torch.Tensor] = kernels.pool
    monkeypatch.setattr(kernels, "pool", lambda *arguments: pool(*arguments) * 1)
    assert three_members().together is None


def test_one_image_is_refused_where_members_answers_are_not_finite(path: str) -> None:
    committee = three_members()
    with torch.no_grad():
        for tensor in committee.networks[2].parameters():
            tensor.fill_(3e38)  # finite each
    with pytest.raises(RunError, match="place 2 are expected to be finite numbers and are not"):
        committee.predict(IMAGES[:1])


def test_a_committee_that_has_predicted_is_copied_without_its_programs(path: str) -> None:
    committee = three_members()
    answer = committee.predict_proba(IMAGES[:1])
    assert np.array_equal(copy.deepcopy(committee).predict_proba(IMAGES[:1]), answer)


def test_programs_run_all_their_calls_on_their_own_tensors(path: str) -> None:
    inputs = [torch.rand(1, 4, 4, 16).bfloat16() for _ in range(5)]
    recorded = [record(lambda x=x: kernels.pool(kernels.pool(x, 2, 1), 1, 2)) for x in inputs]
    for x in inputs:
        x.copy_(torch.rand(x.shape))
    for threads in (1, 3):
        for _, result in recorded:
            result.zero_()
        Programs([calls for calls, _ in recorded]).run(threads)
        for x, (_, result) in zip(inputs, recorded, strict=True):
            assert torch.equal(result, kernels.pool(x, 2, 2))
    assert not binding.recordings


def test_numbers_of_all_types_reach_a_recorded_call(path: str) -> None:
    pixels, weights = torch.rand(1, 5, 5, 1), torch.rand(3, 3, 1, 16)
    calls, result = record(lambda: kernels.stem(pixels, 0.5, 1e-3, weights, None, 1, relu=True))
    expected = result.clone()
    result.zero_()
    Programs([calls]).run(1)
    assert torch.equal(result, expected)
    assert expected.any()


def test_a_member_takes_further_views_of_what_it_is_unsure_of_and_the_more_the_less_sure_it_is() -> None:
    pixels = torch.arange(12).view(1, 3, 4, 1)
    right, up = seen(pixels, View(False, right=1))[0, :, :, 0], seen(pixels, View(True, down=-1))[0, :, :, 0]
    assert right.tolist() == [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]
    assert up.tolist() == [[7, 6, 5, 4], [11, 10, 9, 8], [11, 10, 9, 8]]
    confident = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
    assert Views("shifts", 0.8).weight(confident)[:, 0].tolist() == pytest.approx([1, 1, 0.5, 0, 0])

    passed = []

    def brightest_quarter(images: torch.Tensor) -> torch.Tensor:  # "networks" whose logits are sums over the quarters
        passed.append(len(images))
        return functional.adaptive_avg_pool2d(images, 2).flatten(1) / 16

    images = np.zeros((3, 4, 4, 1), dtype=np.uint8)
    images[0, 0, 0], images[1, 1, 1], images[2, :2, :2] = 90, 140, 255  # the first class: .58, .75, 1.00
    found = member_probabilities(brightest_quarter, images, "cpu", Views("shifts", 0.8))
    assert passed == [3, 2, 2, 2, 2]
    looks = [seen(torch.from_numpy(images), view) for view in (View(False), *FURTHER["shifts"])]
    each = torch.stack([brightest_quarter(look.permute(0, 3, 1, 2).float()).softmax(1) for look in looks])
    weight = ((0.8 - each[0].amax(1)) / 0.2).clamp(0, 1)[:, None]
    assert weight[:, 0].tolist() == pytest.approx([1, 0.26, 0], abs=0.01)
    assert np.allclose(found, each[0] * (1 - weight) + each.mean(0) * weight, atol=1e-6)
