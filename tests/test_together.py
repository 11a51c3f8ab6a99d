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

from committee import kernels
from committee.config import recipe_parsing as recipes
from committee.ensemble.committee import FEW_IMAGES, Committee
from committee.errors import RunError
from committee.kernels import binding
from committee.kernels.programs import Programs, record
from committee.nn import devices
from committee.nn.architectures import build

IMAGES = np.random.default_rng(0).integers(
    0, 256, (FEW_IMAGES + 4, 28, 28, 1), dtype=np.uint8
)  # so many go another way
RECIPES = [("ensemble-cnn", ""), ("standard", ""), ("standard", "network.backbone=vgg network.widths=[16,32,64]")]


def three_members(name: str = "ensemble-cnn", changes: str = "", tta: str = "none") -> Committee:
    network = recipes.load(name, changes.split()).network
    members = [build(network, (1, 28, 28), 10, torch.Generator().manual_seed(seed)).eval() for seed in range(3)]
    last = [member.to(memory_format=torch.channels_last) for member in members]  # type: ignore[call-overload]
    return Committee(tuple(last), tuple("0123456789"), (28, 28, 1), 255, precision="bfloat16", tta=tta)


@pytest.mark.parametrize(("name", "changes"), RECIPES, ids=["ensemble-cnn", "standard", "vgg"])
@pytest.mark.parametrize("tta", ["none", "horizontal_flip"])
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
