"""The kernels compute what torch computes in float32, within what bfloat16 can hold; without them torch works."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from committee import kernels
from committee.config import recipe_parsing as recipes
from committee.config.recipe import Augmentation
from committee.data import augment
from committee.kernels import binding
from committee.nn import devices
from committee.nn.architectures import build, set_dropout_generator
from committee.nn.devices import single_threaded
from committee.nn.forward import inference_forward, training_forward, training_gradients
from committee.nn.inference import member_probabilities
from committee.nn.views import Views
from committee.training.optim import Adadelta, Nadam


def off(measured: Tensor, true: Tensor) -> float:
    """The relative error, in the norm over all values."""
    return float((measured.float() - true).norm() / true.norm().clamp_min(1e-12))


def first(x: Tensor) -> Tensor:
    return x.float().permute(0, 3, 1, 2)


SHAPES = [  # images, height, width, channels, outputs, kernel, padding
    (4, 28, 28, 16, 16, 3, 1),
    (3, 14, 13, 16, 32, 3, 1),
    (5, 7, 7, 32, 64, 3, 1),
    (2, 7, 9, 64, 64, 3, 0),
    (7, 3, 3, 64, 48, 3, 1),
    (3, 1, 1, 96, 16, 3, 1),
    (1, 2, 5, 128, 96, 3, 1),
    (2, 3, 8, 16, 16, 3, 1),
    (2, 2, 18, 32, 16, 3, 1),
    (2, 4, 19, 16, 16, 3, 1),
    (2, 30, 17, 48, 32, 5, 2),
    (3, 6, 6, 16, 64, 5, 0),
    (2, 2, 1, 32, 16, 5, 2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_convolution_and_its_gradients_are_torchs(shape: tuple[int, ...], path: str) -> None:
    images, height, width, channels, outputs, kernel, padding = shape
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(images, height, width, channels, generator=draws).bfloat16()
    weight = torch.randn(outputs, channels, kernel, kernel, generator=draws) / (channels * kernel**2) ** 0.5
    bias = torch.randn(outputs, generator=draws)
    ahead, back = kernels.transform_filters(weight.permute(0, 2, 3, 1).contiguous())
    y = kernels.conv(x, ahead, bias, outputs, kernel, padding, relu=True)
    plain = [first(x).requires_grad_(), weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    result = functional.conv2d(*plain, padding=padding)
    most, weights_most = (
        (0.01, 0.01) if kernels.product_dtype() == torch.bfloat16 else (0.003, 1e-5)
    )  # bfloat16's last bit is worth .004
    assert off(first(y), result.detach().relu()) < most
    dy = torch.randn(y.shape, generator=draws).bfloat16()
    result.backward(first(dy * (y > 0)))
    dx = kernels.conv(dy, back, None, channels, kernel, kernel - 1 - padding, relu_output=y)
    dw, db = kernels.conv_gradient(x, dy, kernel, padding, relu_output=y)
    assert db is not None
    gradients = [each.grad for each in plain]
    assert off(first(dx), gradients[0]) < most
    assert off(first(dw), gradients[1]) < weights_most
    assert off(db, gradients[2]) < 1e-5


@pytest.mark.usefixtures("path")
def test_a_call_is_checked_against_the_compiled_types() -> None:
    x, y = torch.zeros(2, 4, 4, 16, dtype=torch.bfloat16), torch.empty(2, 2, 2, 16, dtype=torch.bfloat16)
    arguments = (x, y, 2, 4, 4, 16, 2, 2)
    binding.call("max_pool", *arguments)
    assert [str(each) for each in binding.path().functions["max_pool"].parameters] == [
        "a contiguous bfloat16 tensor on the CPU, read",
        "a contiguous bfloat16 tensor on the CPU, written",
        *["int64", "int32", "int32", "int32", "int32", "int32"],
    ]
    with pytest.raises(TypeError, match="max_pool takes 8 arguments, not 7"):
        binding.call("max_pool", *arguments[:-1])
    wrong = {
        "a contiguous float32 tensor on cpu": x.float(),
        "a non-contiguous bfloat16 tensor on cpu": x.transpose(1, 2),
        "a contiguous bfloat16 tensor on meta": x.to("meta"),
        "None": None,
        "3": 3,
    }
    for found, argument in wrong.items():
        with pytest.raises(TypeError, match=f"argument 1 of max_pool must be a contiguous bfloat16 .*; it is {found}"):
            binding.call("max_pool", argument, *arguments[1:])
    with pytest.raises(TypeError, match="max_pool: argument 3"):
        binding.call("max_pool", x, y, 2.5, *arguments[3:])


@pytest.mark.usefixtures("path")
def test_the_functions_on_tensors_refuse_what_has_no_kernel() -> None:
    x = torch.zeros(1, 4, 4, 16, dtype=torch.bfloat16)
    filters, _ = kernels.transform_filters(torch.zeros(16, 3, 3, 16))
    kernels.conv(x, filters, None, 16, 3, 1)
    with pytest.raises(TypeError, match=r"argument 4 of convolution must be .* float32 .*, read, or None"):
        kernels.conv(x, filters, torch.zeros(16, dtype=torch.float64), 16, 3, 1)
    with pytest.raises(TypeError, match=r"argument 3 of convolution must be .*float64 tensor"):
        kernels.conv(x, filters.double(), None, 16, 3, 1)
    with pytest.raises(ValueError, match="no convolution of 3x3 pixels from 80 to 16 channels"):
        kernels.conv(torch.zeros(1, 4, 4, 80, dtype=torch.bfloat16), filters, None, 16, 3, 1)
    with pytest.raises(ValueError, match="no convolution of 3x3 pixels from 16 to 24 channels"):
        kernels.conv(x, filters, None, 24, 3, 1)
    pixels = torch.zeros(1, 4, 4, 1)
    of_seven = {
        "conv": lambda: kernels.conv(x, filters, None, 16, 7, 3),
        "conv_gradient": lambda: kernels.conv_gradient(x, x, 7, 3),
        "transform_filters": lambda: kernels.transform_filters(torch.zeros(16, 7, 7, 16)),
        "stem": lambda: kernels.stem(pixels, 0, 1, torch.zeros(7, 7, 1, 16), None, 3),
        "stem_gradient": lambda: kernels.stem_gradient(pixels, 0, 1, x, 7, 3, relu_output=None, bias=False),
    }
    for call in of_seven.values():
        with pytest.raises(ValueError, match="no convolution of 7x7 pixels from"):
            call()
    with pytest.raises(ValueError, match="from 2 to 16 channels"):
        kernels.stem_gradient(torch.zeros(1, 4, 4, 2), 0, 1, x, 3, 1, relu_output=None, bias=False)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("channels", "kernel", "padding"), [(1, 3, 1), (1, 5, 2), (3, 3, 0), (3, 5, 2)])
def test_the_first_convolution_is_float32(channels: int, kernel: int, padding: int) -> None:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 9, 15, channels), generator=draws).float()
    weight = torch.randn(32, channels, kernel, kernel, generator=draws).requires_grad_()
    bias = torch.randn(32, generator=draws).requires_grad_()
    result = functional.conv2d((first(pixels) - 30) / 70, weight, bias, padding=padding)
    y = kernels.stem(
        pixels, 30, 70, weight.detach().permute(2, 3, 1, 0).contiguous(), bias.detach(), padding, relu=True
    )
    assert (
        torch.equal(first(y), result.detach().relu().bfloat16().float()) or off(first(y), result.detach().relu()) < 2e-3
    )
    dy = torch.randn(y.shape, generator=draws).bfloat16()
    result.backward(first(dy * (y > 0)))
    dw, db = kernels.stem_gradient(pixels, 30, 70, dy, kernel, padding, relu_output=y, bias=True)
    assert weight.grad is not None
    assert db is not None
    assert bias.grad is not None
    assert off(first(dw), weight.grad) < 1e-5
    assert off(db, bias.grad) < 1e-5


DENSE = [
    (128, 1600, 128),
    (37, 128, 10),
    (1, 16, 16),
    (3, 10, 7),
    (17, 33, 20),
    (29, 50, 100),
]  # images, inputs, outputs


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", DENSE, ids=str)
def test_a_dense_layer_and_its_gradients_are_torchs(shape: tuple[int, int, int], relu: bool) -> None:
    images, inputs, outputs = shape
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(images, inputs, generator=draws).bfloat16()
    weight, bias = torch.randn(outputs, inputs, generator=draws) / inputs**0.5, torch.randn(outputs, generator=draws)
    ahead, back = kernels.pack_dense(weight)
    y = kernels.dense(x, ahead, bias, relu=relu)
    plain = [each.double().requires_grad_() for each in (x, weight, bias)]
    result = functional.linear(*plain)
    most = 0.005  # bfloat16's last bit is worth .004, of the weights too where products are of that type
    assert off(y, (result.relu() if relu else result).detach()) < most
    for image in (0, images // 2, images - 1):
        assert torch.equal(kernels.dense(x[image : image + 1], ahead, bias, relu=relu)[0], y[image])
    dy = torch.randn(y.shape, generator=draws).bfloat16()
    result.backward((dy * (y > 0) if relu else dy).double())
    mask = y if relu else None
    dx, *others = kernels.dense_gradient(x, dy, back, relu_output=mask, needs_dx=True)
    assert dx is not None
    assert off(dx, plain[0].grad) < most
    for gradient, true in zip(others, plain[1:], strict=True):
        assert off(gradient, true.grad) < 1e-6
    none, *same = kernels.dense_gradient(x, dy, back, relu_output=mask, needs_dx=False)
    assert none is None
    assert all(torch.equal(a, b) for a, b in zip(same, others, strict=True))
    with pytest.raises(ValueError, match=f"the weights are not those of a dense layer from {inputs + 32} to"):
        kernels.dense(torch.zeros(1, inputs + 32).bfloat16(), ahead, bias, relu=relu)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("size", [(2, 2), (1, 2), (3, 3)])
def test_pooling_and_its_gradient_are_torchs_bit_for_bit(size: tuple[int, int]) -> None:
    x = torch.randint(-3, 4, (3, 7, 9, 32), generator=torch.Generator().manual_seed(0)).bfloat16()  # many equal values
    plain = first(x).requires_grad_()
    result = functional.max_pool2d(plain, size)
    y, chosen = kernels.pool_choosing(x, *size, positive=False)
    assert torch.equal(first(y), result)
    assert torch.equal(kernels.pool(x, *size), y)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    result.backward(first(dy))
    assert torch.equal(first(kernels.pool_gradient(dy, chosen, 7, 9, *size)), plain.grad)
    same, positive = kernels.pool_choosing(x, *size, positive=True)
    assert torch.equal(same, y)
    after_relu = first(kernels.pool_gradient(dy, positive, 7, 9, *size))
    assert torch.equal(after_relu, plain.grad * (first(x) > 0))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("relu", [False, True])
def test_normalisation_is_torchs_with_its_running_statistics(relu: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    x = (torch.randn(5, 7, 3, 48, generator=draws) * 2 + 3).bfloat16()
    norm = nn.BatchNorm2d(48)
    norm.weight.data.normal_(generator=draws)
    mean, variance = torch.zeros(48), torch.ones(48)
    z, statistics = kernels.norm(x, norm.weight.detach(), norm.bias.detach(), norm.eps, 0.1, mean, variance, relu=relu)
    plain = first(x).requires_grad_()
    result = norm(plain).relu() if relu else norm(plain)
    assert off(first(z), result.detach()) < 0.004
    assert off(mean, norm.running_mean) < 1e-5
    assert off(variance, norm.running_var) < 1e-5
    dz = torch.randn(z.shape, generator=draws).bfloat16()
    result.backward(first(dz))
    dx, weight, bias = kernels.norm_gradient(x, dz, statistics, norm.eps, relu=relu)
    assert off(first(dx), plain.grad) < 0.005
    assert off(weight, norm.weight.grad) < 1e-4
    assert off(bias, norm.bias.grad) < 1e-4


@pytest.mark.usefixtures("path")
def test_dropout_keeps_its_rate_its_scale_and_its_zeros() -> None:
    x = torch.ones(100, 997).bfloat16()
    y, bits = kernels.dropout(x, 0.25, 12345)
    kept = y > 0
    assert torch.equal(y[kept], torch.full_like(y[kept], 4 / 3))
    assert abs(float(kept.float().mean()) - 0.75) < 4 * (0.25 * 0.75 / x.numel()) ** 0.5
    assert float(torch.corrcoef(kept[:, :-1].flatten().float().reshape(2, -1))[0, 1].abs()) < 0.02
    assert torch.equal(kernels.dropout_gradient(x, bits, 0.25), y)
    assert torch.equal(kernels.dropout(x, 0.25, 12345)[0], y)
    assert not torch.equal(kernels.dropout(x, 0.25, 12346)[0], y)


def test_dropout_pooling_and_rounding_are_the_same_bits_on_all_paths() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (3, 7, 9, 48), generator=draws).bfloat16()  # many equal values
    dy = torch.randn(3, 3, 4, 48, generator=draws).bfloat16()
    odd = torch.randn(32 * 5 + 13, generator=draws).bfloat16()  # its last part is not full
    odd[3:6] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    bits = torch.randint(-(2**31), 2**31, (16 * 4096,), generator=draws, dtype=torch.int64)
    bits[: 1 << 14] = (bits[: 1 << 14] & ~0xFFFF) | 0x8000  # halfway between two
    floats = bits.to(torch.int32).view(torch.float32)
    floats = floats[(floats.abs() > 1e-37) & (floats.abs() < torch.inf)][: 16 * 3000]  # instructions flush denormals

    not_numbers = torch.full((4, 48), 2**31 - 1, dtype=torch.int32).view(torch.float32)  # rounded as numbers, -0

    def results() -> dict[str, Tensor]:
        pooled, chosen = kernels.pool_choosing(x, 2, 2, positive=True)
        dropped, kept = kernels.dropout(odd, 0.3, 99)
        y = kernels.scale(torch.zeros(1, 1, 1, len(floats)).bfloat16(), torch.zeros(len(floats)), floats, relu=False)
        return {
            "pooled": pooled,
            "pooling's gradient": kernels.pool_gradient(dy, chosen, 7, 9, 2, 2),
            "kept": kept,
            "dropped": dropped,
            "dropout's gradient": kernels.dropout_gradient(odd, kept, 0.3),
            "rounded": y.flatten(),
            "all not numbers": kernels.norm_gradient(x[:, :3, :4].contiguous(), dy, not_numbers, 1e-5, relu=False)[0],
        }

    found = {}
    for name in binding.runnable_paths():
        if name != "torch":
            with binding.use(name):
                found[name] = results()
    for name, each in found.items():
        assert torch.equal(each["rounded"], floats.bfloat16()), name
        assert bool(each["dropped"][3].isnan()), name
        assert bool(each["all not numbers"].isnan().all()), name
        for what, values in next(iter(found.values())).items():
            assert torch.equal(each[what].nan_to_num(7), values.nan_to_num(7)), (name, what)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("fill", ["zero", "edge"])
@pytest.mark.parametrize("shape", [(20, 1, 28, 28), (20, 3, 17, 33)])
def test_warped_images_are_torchs(shape: tuple[int, ...], fill: str) -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=draws).float().contiguous(memory_format=torch.channels_last)
    wild = Augmentation(rotation=40, zoom=0.4, shear=0.3, shift=0.6, flip_horizontal=True)
    matrices = augment.random_matrices(len(images), wild, images, draws)
    bends = augment.random_bends(len(images), 0.05, images, draws)
    ours = [augment.warp(images, matrices, fill, each) for each in (None, bends)]
    with binding.use("torch"):
        for mine, each in zip(ours, (None, bends), strict=True):
            assert (mine - augment.warp(images, matrices, fill, each)).abs().max() < 0.01  # of 255


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (Nadam, torch.optim.NAdam, {"lr": 2e-3, "eps": 1e-7, "weight_decay": 0.01}),
        (Adadelta, torch.optim.Adadelta, {"lr": 1.0, "rho": 0.95, "eps": 1e-7}),
    ],
)
def test_optimisers_step_as_torchs(
    ours: type[torch.optim.Optimizer], theirs: type[torch.optim.Optimizer], settings: dict[str, float]
) -> None:
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(1003, generator=draws)
    a, b = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimisers = [ours([a], **settings), theirs([b], **settings)]
    for _ in range(100):
        gradient = torch.randn(1003, generator=draws)
        for parameter, optimiser in zip((a, b), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    assert off(a.detach() - start, b.detach() - start) < 1e-4
    mine, other = (optimiser.state_dict()["state"][0] for optimiser in optimisers)
    assert mine.keys() == other.keys()


@pytest.mark.parametrize("name", ["ensemble-cnn", "standard"])
def test_a_network_with_kernels_is_no_further_from_float32_than_torchs_bfloat16(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits, every gradient and the running statistics of one training step."""
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    recipe, draws = recipes.load(name), torch.Generator().manual_seed(1)
    network = build(recipe.network, (1, 28, 28), 10, draws).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.randint(0, 256, (48, 1, 28, 28), generator=draws).float() / 255
    labels = torch.randint(0, 10, (48,), generator=draws)

    def step(precision: str) -> tuple[nn.Module, Tensor]:
        own = copy.deepcopy(network).train()
        set_dropout_generator(own, torch.Generator().manual_seed(5))
        for module in own.modules():
            if hasattr(module, "rate"):
                module.rate = 0.0  # its masks depend on the precision
        with single_threaded():
            logits = training_forward(own, "cpu", precision)(pixels).float()
            functional.cross_entropy(logits, labels).backward()
        return own, logits

    (exact, true), (ours, mine) = step("float32"), step("bfloat16")
    with binding.use("torch"):
        theirs, other = step("bfloat16")
    assert not torch.equal(mine, other)  # the kernels did run
    assert off(mine.detach(), true.detach()) < 1.5 * off(other.detach(), true.detach())
    gradients = [[p.grad for p in each.parameters() if p.grad is not None] for each in (exact, ours, theirs)]
    assert len(gradients[1]) == len(gradients[0]) == len(list(exact.parameters()))
    errors = [sum(off(a, b) for a, b in zip(each, gradients[0], strict=True)) for each in gradients[1:]]
    assert errors[0] < 1.5 * errors[1]
    for (place, buffer), own in zip(exact.named_buffers(), ours.buffers(), strict=True):
        assert off(own, buffer.float()) < 0.01, place


@pytest.mark.parametrize(
    ("name", "changes", "precision"),
    [
        ("ensemble-cnn", [], "bfloat16"),
        ("standard", [], "bfloat16"),
        ("standard", ["network.backbone=vgg", "network.widths=[16,32,64]"], "bfloat16"),
        ("standard", ["network.widths=[24,40,40]"], "bfloat16"),  # no kernel has these widths: torch's layers
        ("ensemble-cnn", [], "float32"),
        ("standard", [], "float32"),
    ],
)
def test_an_images_logits_do_not_depend_on_its_company(
    name: str, changes: list[str], precision: str, any_path: str
) -> None:
    recipe = recipes.load(name, changes)
    draws = torch.Generator().manual_seed(0)
    network = build(recipe.network, (1, 28, 28), 10, draws).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = np.random.default_rng(0).integers(0, 256, (100, 28, 28, 1), dtype=np.uint8)
    judge = inference_forward(network, "cpu", precision)
    with single_threaded():
        together = member_probabilities(judge, images, "cpu", Views())
        alone = [slice(image, image + 1) for image in range(40)]
        for part in [slice(number) for number in (2, 3, 16, 17, 33, 63, 64, 65)] + alone:
            assert np.array_equal(member_probabilities(judge, images[part], "cpu", Views()), together[part])


@pytest.mark.parametrize("name", ["ensemble-cnn", "standard"])
def test_gradients_past_autograd_are_its_own_bit_for_bit(name: str, any_path: str) -> None:
    """Those of an earlier batch do not count."""
    network = build(recipes.load(name).network, (1, 28, 28), 10, torch.Generator().manual_seed(1)).train()
    own, plain = (copy.deepcopy(network).to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
    pixels = torch.rand(2, 16, 1, 28, 28, generator=torch.Generator().manual_seed(2)) * 255
    loss_of = partial(functional.cross_entropy, target=torch.arange(16) % 10)
    gradients = training_gradients(own, "cpu", "bfloat16")
    with single_threaded():
        for module in (own, plain):
            set_dropout_generator(module, torch.Generator().manual_seed(5))
        for batch in pixels:
            loss, logits = gradients(batch, loss_of)
            plain.zero_grad()
            expected = training_forward(plain, "cpu", "bfloat16")(batch).float()
            loss_of(expected).backward()
            assert torch.equal(logits, expected.detach())
            assert torch.equal(loss, loss_of(expected).detach())
            assert not loss.requires_grad
    for mine, theirs in zip(own.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


def test_without_kernels_the_network_itself_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    network = build(recipes.load("standard").network, (1, 12, 12), 3, torch.Generator().manual_seed(0)).eval()
    pixels = torch.rand(4, 1, 12, 12) * 255
    with binding.use("torch"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(training_forward(network, "cpu", "bfloat16")(pixels), network(pixels))
        assert torch.equal(training_forward(network, "cpu", "float32")(pixels), network(pixels))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("name", ["ensemble-cnn", "standard"])
def test_a_trained_network_judges_as_in_float32_and_follows_its_weights(name: str) -> None:
    """Normalisation is folded into the weights; a change of weights or statistics must reach the folded ones."""
    recipe, draws = recipes.load(name), torch.Generator().manual_seed(3)
    network = build(recipe.network, (1, 28, 28), 10, draws).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.randint(0, 256, (8, 1, 28, 28), generator=draws).float() / 255
    forward, exact = training_forward(network.eval(), "cpu", "bfloat16"), training_forward(network, "cpu", "float32")
    for _ in range(2):
        with single_threaded(), torch.no_grad():
            assert off(forward(pixels), exact(pixels)) < 0.03
            for tensor in network.state_dict().values():
                if tensor.is_floating_point() and tensor.ndim:
                    tensor.mul_(1 + torch.rand(tensor.shape, generator=draws))
