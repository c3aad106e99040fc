"""FASR-Net: the extractor the paper counts, hard attention that is exact in pieces, fallbacks without a reference, ablations."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from MRSuperResLib import networks
from MRSuperResLib.errors import MissingRequirement, ModelError
from MRSuperResLib.losses.fourier import FourierLoss
from MRSuperResLib.losses.perceptual import PerceptualLoss, read_vgg19
from MRSuperResLib.models import ModelCard, load_network, read_entry, save_model
from MRSuperResLib.networks import fasr
from MRSuperResLib.networks.fasr import attention
from MRSuperResLib.networks.fasr import hints as of_hints
from MRSuperResLib.networks.fasr.extractor import IMAGENET_DEVIATION, IMAGENET_MEAN, VGG_LAYERS
from MRSuperResLib.networks.parts import projection
from MRSuperResLib.networks.parts.skip import measured, zero_filled

SMALL = {"size": "s", "widths": [4, 8, 8], "stages": 1, "embedding": 8}


def multiply_adds(network: nn.Module, *inputs: Tensor) -> float:
    """Multiply-adds of the convolutions in one forward pass."""
    total = [0]

    def count(layer: nn.Module, _: object, answer: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        total[0] += answer[0].numel() // layer.out_channels * layer.weight.numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.inference_mode():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return float(total[0])


def test_the_extractor_is_vgg19_up_to_relu3_2() -> None:
    """VGG-19's own table: 1.145 M parameters and 9.78 G multiply-adds up to conv3_2 at 256 x 256 x 3, by hand."""
    extractor = fasr.TextureExtractor()
    by_hand = sum(a * b * 9 + b for a, b in ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)))
    assert sum(p.numel() for p in extractor.parameters()) == by_hand == 1_145_408
    image = torch.zeros(1, 1, 256, 256)
    assert multiply_adds(extractor, image) == pytest.approx(9.777e9, rel=1e-3)
    assert [tuple(f.shape[1:]) for f in extractor(image[..., :64, :64])] == [(64, 64, 64), (128, 32, 32), (256, 16, 16)]


def test_three_inputs_through_conv3_1_cost_what_the_paper_prints() -> None:
    """Table II prints 22.06 G. Three images through all before conv3_2 are 22.08 G; no cut of VGG-19 has its 12.34 M."""
    extractor = fasr.TextureExtractor()
    last = multiply_adds(nn.Conv2d(256, 256, 3, padding=1), torch.zeros(1, 256, 64, 64))
    assert 3 * (multiply_adds(extractor, torch.zeros(1, 1, 256, 256)) - last) == pytest.approx(22.06e9, rel=2e-3)


def test_imagenet_weights_come_only_from_the_file_that_was_named(tmp_path: Path) -> None:
    layers = ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256))
    weights: dict[str, Tensor] = {}
    for number, (a, b) in zip(VGG_LAYERS, layers, strict=True):
        weights |= {f"features.{number}.weight": torch.randn(b, a, 3, 3), f"features.{number}.bias": torch.randn(b)}
    path = tmp_path / "vgg19.safetensors"
    save_file(weights, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    extractor = fasr.TextureExtractor()
    extractor.load_vgg(read_vgg19(path, digest))
    image = torch.rand(1, 1, 8, 8)
    x = (image - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_DEVIATION)[:, None, None]
    for number in (0, 2):
        x = torch.relu(
            torch.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1)
        )
    torch.testing.assert_close(extractor(image)[0], x)
    with pytest.raises(ModelError, match="SHA-256"):
        read_vgg19(path, "0" * 64)
    with pytest.raises(MissingRequirement, match="does not exist"):
        read_vgg19(tmp_path / "none.safetensors", digest)
    with pytest.raises(ValueError, match="conv1_1"):
        fasr.TextureExtractor((4, 8, 8)).load_vgg(weights)
    for damage, complaint in (
        ({"features.12.bias": torch.zeros(512)}, "'features.12.bias' of 256 has 512 values there"),
        ({"features.5.weight": None}, "'features.5.weight' of 128 x 64 x 3 x 3 is not in it"),
        ({"features.2.weight": torch.zeros(64, 64)}, "'features.2.weight' of 64 x 64 x 3 x 3 has 64 x 64 values"),
    ):
        save_file({name: value for name, value in {**weights, **damage}.items() if value is not None}, path)
        with pytest.raises(ModelError, match=complaint):
            read_vgg19(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_search_in_pieces_finds_the_indices_of_the_whole_matrix() -> None:
    q, k = torch.randn(2, 48, 7), torch.randn(2, 80, 7)
    weights = torch.softmax(q @ k.transpose(1, 2), -1)
    for chunk in (1, 2 * 80 * 5, 10**9):
        match = attention.best_match(q, k, chunk)
        assert torch.equal(match.index, weights.argmax(-1))
        torch.testing.assert_close(match.peak, weights.amax(-1))


def test_pyramid_search_in_pieces_finds_the_indices_of_the_upsampled_sum() -> None:
    """Eqs. 14-16 written out: each scale's softmax as an image of images, upsampled nearest on both sides, and summed."""
    size, key_size = (8, 12), (4, 8)
    q = [torch.randn(2, size[0] * size[1] // s**2, 5) for s in (1, 2, 4)]
    k = [torch.randn(2, key_size[0] * key_size[1] // s**2, 5) for s in (1, 2, 4)]
    total = torch.zeros(2, *size, *key_size)
    for own_q, own_k, s in zip(q, k, (1, 2, 4), strict=True):
        c = torch.softmax(own_q @ own_k.transpose(1, 2), -1)
        c = c.view(2, size[0] // s, size[1] // s, key_size[0] // s, key_size[1] // s)
        for axis in (1, 2, 3, 4):
            c = c.repeat_interleave(s, dim=axis)
        total += c
    whole = total.view(2, size[0] * size[1], -1)
    for chunk in (1, 10**9):
        match = attention.best_pyramid_match(q, k, size, key_size, chunk)
        assert torch.equal(match.index, whole.argmax(-1))
        torch.testing.assert_close(match.peak, whole.amax(-1) / 3)


def test_tokens_are_cut_and_pasted_without_loss_and_warped_by_index() -> None:
    image = torch.randn(2, 3, 8, 12)
    tokens = attention.unfold(image, 4)
    assert tokens.shape == (2, 6, 48)
    torch.testing.assert_close(attention.fold(tokens, (2, 3), 4), image)
    swapped = attention.fold(attention.gather_tokens(tokens, torch.tensor([[5, 1, 2, 3, 4, 0]] * 2)), (2, 3), 4)
    torch.testing.assert_close(swapped[..., :4, :4], image[..., 4:, 8:])


def test_a_shifted_reference_is_found_where_it_went() -> None:
    """With keys like the queries but one token to the right, every match is one token to the right."""
    matcher = attention.Matcher(cosine=True, prior=8.0, patch=4)
    tokens = torch.randn(1, 6, 6, 16)
    q = matcher.queries(tokens.view(1, 36, 16), (6, 6), 4)
    k = matcher.keys(tokens.roll(1, 2).view(1, 36, 16), (6, 6), 4, torch.ones(1, 36))
    index = attention.best_match(q, k).index.view(6, 6)
    assert torch.equal(index[:, :5], torch.arange(36).view(6, 6)[:, 1:])


@pytest.mark.parametrize("factors", [(4, 4), (2, 2), (4, 1), (3, 2)])
@pytest.mark.parametrize("size", [(8, 8), (13, 9)])
def test_any_factor_and_size(factors: tuple[int, int], size: tuple[int, int]) -> None:
    network = networks.build("fasr", {**SMALL, "factors": list(factors)})
    fine = (size[0] * factors[0], size[1] * factors[1])
    assert network(torch.rand(1, 1, *size), torch.rand(1, 1, *fine)).shape == (1, 1, *fine)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"single_multi": False},
        {"multi_multi": False},
        {"single_multi": False, "multi_multi": False},
        {"fusion": False},
    ],
)
@pytest.mark.parametrize("modulate", ["output", "input"])
def test_ablations_run_and_every_weight_learns(flags: dict[str, bool], modulate: str) -> None:
    torch.manual_seed(0)
    network = networks.build("fasr", {**SMALL, "skip": "none", "modulate": modulate, "factors": [2, 2], **flags})
    answer = network(torch.rand(2, 1, 16, 16), torch.rand(2, 1, 32, 32))
    answer.square().mean().backward()
    still = {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}
    # A key's bias adds the same to all of a query's correlations, so softmax does not feel it.
    assert all("key" in name and name.endswith(".bias") for name in still), still


def test_an_untrained_small_network_gives_the_interpolated_image() -> None:
    network = networks.build("fasr", SMALL)
    x = torch.rand(1, 1, 8, 8)
    expected = nn.functional.interpolate(x, scale_factor=4, mode="bicubic", antialias=True)
    torch.testing.assert_close(network(x, torch.rand(1, 1, 32, 32)), expected)


def trained_looking() -> nn.Module:
    """A small network whose output is not its start."""
    torch.manual_seed(1)
    network = networks.build("fasr", SMALL).eval()
    nn.init.normal_(network.decoder.tail.weight)  # type: ignore[union-attr]
    return network


def test_without_a_valid_reference_nothing_of_it_reaches_the_answer() -> None:
    network, x = trained_looking(), torch.rand(1, 1, 8, 8)
    nowhere = torch.zeros(1, 1, 32, 32)
    with torch.inference_mode():
        one, other = (network(x, torch.rand(1, 1, 32, 32) * 3, nowhere) for _ in range(2))
        seen = network(x, torch.rand(1, 1, 32, 32))
    assert torch.equal(one, other)
    assert (one - seen).abs().max() > 1e-3


def on_base(**changes: Any) -> fasr.FASR:
    """A small network around an RDST of one block, both with weights that do something."""
    torch.manual_seed(2)
    factors = changes.get("factors", [2, 2])
    inner = {"blocks": 1, "width": 8, "heads": 2, "growth": 4, "window": 4, "skip": "bicubic", "factors": factors}
    base = {"architecture": "rdst", "hyperparameters": inner}
    network = networks.build("fasr", {**SMALL, "hints": True, "factors": factors, "base": base, **changes})
    assert isinstance(network, fasr.FASR) and network.base is not None
    nn.init.normal_(network.base.tail.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    return network.eval()


@pytest.mark.parametrize("factors", [[2, 2], [4, 4], [4, 1]])
def test_before_training_the_answer_is_the_single_image_models(factors: list[int]) -> None:
    network, x = on_base(factors=factors), torch.rand(2, 1, 9, 13)
    reference = torch.rand(2, 1, 9 * factors[0], 13 * factors[1])
    with torch.inference_mode():
        assert torch.equal(network(x, reference), network.base(x))  # type: ignore[misc]


@pytest.mark.parametrize("detail", [False, True])
def test_without_a_reference_the_answer_is_the_single_image_models_to_the_last_bit(detail: bool) -> None:
    """Trained or not: for a whole slice, for one slice of a batch, and in the part that a reference does not cover."""
    network, x = on_base(detail=detail), torch.rand(2, 1, 32, 32)
    nn.init.normal_(network.decoder.tail.weight)
    reference, valid = torch.rand(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    with torch.inference_mode():
        alone = network.base(x)  # type: ignore[misc]
        assert torch.equal(network(x, reference, torch.zeros_like(valid)), alone)
        valid[0] = 0
        answer = network(x, reference, valid)
        assert torch.equal(answer[0], alone[0]) and (answer[1] - alone[1]).abs().max() > 1e-2
        valid[1, :, :, 48:] = 0
        answer = network(x, reference, valid)
    assert torch.equal(answer[1, :, :, 48:], alone[1, :, :, 48:])
    assert (answer[1, :, :, :32] - alone[1, :, :, :32]).abs().max() > 1e-2


def test_what_a_reference_adds_as_detail_leaves_the_low_frequencies_as_they_were() -> None:
    x, reference = torch.rand(1, 1, 24, 24), torch.rand(1, 1, 48, 48)
    coarse = []
    for detail in (False, True):
        network = on_base(detail=detail)
        torch.nn.init.constant_(network.decoder.tail.weight, 0.02)
        with torch.no_grad():
            added = network(x, reference) - network.base(x)  # type: ignore[operator, misc]
        assert added.abs().max() > 1e-3
        coarse.append(float(projection.bicubic(added, (24, 24)).abs().mean() / added.abs().mean()))
    assert coarse[0] > 0.3 and coarse[1] < 0.2 * coarse[0]


def test_the_reference_fades_inside_its_border_and_not_at_the_edge_of_the_image() -> None:
    valid = torch.ones(1, 1, 40, 80)
    assert torch.equal(of_hints.faded(valid), valid)
    valid[..., 60:] = 0
    weight = of_hints.faded(valid)
    assert not weight[..., 60:].any() and torch.equal(
        weight[..., : 60 - 2 * of_hints.BORDER], valid[..., : 60 - 2 * of_hints.BORDER]
    )
    steps = weight[0, 0, 5].diff()
    assert (steps <= 0).all() and -steps.min() < 0.2  # no artefact: nothing jumps


def test_hints_do_not_depend_on_the_scaling_of_the_reference() -> None:
    """Gain and offset of the reference leave the guess of the missing detail alone; inverted contrast as well."""
    torch.manual_seed(0)
    low, sharp = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    soft, mask = of_hints.windowed(sharp, 1), torch.ones(1, 1, 32, 32)
    hints = of_hints.guided_hints(low, sharp, soft, mask, (2, 4, 9))
    assert hints.shape[1] == of_hints.HINT_CHANNELS
    for gain, offset in ((3.0, 0.0), (1.0, 0.7), (-2.0, 1.5)):
        other = of_hints.guided_hints(low, gain * sharp + offset, gain * soft + offset, mask, (2, 4, 9))
        torch.testing.assert_close(other[:, 1::2], hints[:, 1::2], rtol=0.1, atol=5e-3)
    assert not of_hints.guided_hints(low, sharp, soft, torch.zeros_like(mask), (2, 4, 9)).any()


def test_hints_find_the_detail_of_a_linear_contrast() -> None:
    """Where the scan is 0.5 - 0.4 times the reference, the guess is -0.4 times what the base misses in the reference."""
    torch.manual_seed(0)
    sharp = of_hints.windowed(torch.rand(1, 1, 48, 48), 1) * 30  # far above the variance that counts as noise
    soft = of_hints.windowed(sharp, 1)
    hints = of_hints.guided_hints(0.5 - 0.4 * soft, sharp, soft, torch.ones_like(sharp), (2, 4, 9)) / of_hints.HINT_GAIN
    for guess in (1, 3, 5):
        torch.testing.assert_close(hints[:, guess : guess + 1], -0.4 * (sharp - soft), rtol=0.02, atol=1e-3)
        assert float(hints[:, guess + 1].mean() * of_hints.HINT_GAIN) < -0.99  # the correlation


def test_strangers_transfer_little() -> None:
    """An unrelated image of the same texture: the guess is under a tenth of the detail, in the largest window."""
    torch.manual_seed(0)
    low, sharp = (of_hints.windowed(torch.rand(1, 1, 64, 64), 1) * 3 for _ in range(2))
    soft = of_hints.windowed(sharp, 1)
    hints = of_hints.guided_hints(low, sharp, soft, torch.ones_like(sharp), (2, 4, 9))
    assert hints[:, 5].std() < 0.1 * hints[:, 0].std()


def test_another_contrast_is_trusted_and_noise_is_not() -> None:
    """What the reference may add is weighed by correlation: near 1 for an inverted contrast, near 0 for white or smooth noise."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    low = (0.5 + 0.2 * torch.sin(rows / 4) * torch.cos(columns / 5) + 0.1 * torch.sin(columns / 2.3))[None, None]
    mask, trust = torch.ones_like(low), {}
    for name, soft in (
        ("inverted", 1 - 0.7 * low),
        ("white", torch.rand_like(low)),
        ("smooth", of_hints.windowed(torch.rand_like(low), 2)),
    ):
        trust[name] = float(
            of_hints.trust_map(of_hints.guided_hints(low, soft + 0.01, soft, mask, (4, 8, 16)), 16).mean()
        )
    assert trust["inverted"] > 0.95 and trust["white"] < 0.05 and trust["smooth"] < 0.25, trust


@pytest.mark.parametrize("size", [(48, 40), (47, 41)])
def test_a_scan_that_ends_before_its_band_has_no_room_for_detail(size: tuple[int, int]) -> None:
    """Noise is alike at all frequencies, and so is what lies beyond; the band-limited one has nothing there, nor has its answer."""
    torch.manual_seed(0)
    fine = torch.randn(2, 1, 2 * size[0], 2 * size[1])
    coarse = measured(fine, (2, 2))
    assert (of_hints.room_for_detail(coarse, fine, (2, 2), (-1.9, -0.6)) == 1).all()
    dull = zero_filled(coarse, (2, 2)) + 0.02 * fine
    assert (of_hints.room_for_detail(coarse, dull, (2, 2), (-1.9, -0.6)) == 0).all()


def test_the_base_is_frozen_and_stays_in_evaluation_mode() -> None:
    network = on_base().train()
    assert network.training and not network.base.training  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in network.base.state_dict().items()}  # type: ignore[union-attr]
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 32, 32)).square().mean().backward()
    optimiser.step()
    assert network.decoder.tail.weight.any()
    for name, value in network.base.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, before[name])
    names = [name.startswith("base.") for name, _ in network.named_parameters()]
    assert names == sorted(names)  # what is trained comes first


def test_a_network_with_a_base_travels_in_one_package(tmp_path: Path) -> None:
    network = on_base().half().float()  # packages hold fp16
    nn.init.constant_(network.decoder.tail.weight, 0.125)
    inner = {"blocks": 1, "width": 8, "heads": 2, "growth": 4, "window": 4, "skip": "bicubic", "factors": [2, 2]}
    hyperparameters = {
        **SMALL,
        "hints": True,
        "factors": [2, 2],
        "base": {"architecture": "rdst", "hyperparameters": inner},
    }
    card = ModelCard(
        id="tiny", title="Tiny", version="1", architecture="fasr", task="reference-guided", plane="in-plane", factors=(2, 2),
        contrasts=("any",), spacing=None, licence="Apache-2.0", intended_use="Tests", hyperparameters=hyperparameters,
    )  # fmt: skip
    entry = save_model(tmp_path / "tiny.safetensors", card, network.state_dict())
    again = load_network(read_entry(entry.path or ""))
    x, reference = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(again(x, reference), network(x, reference), rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in again.parameters())


def test_a_base_of_another_factor_is_refused() -> None:
    inner = {"blocks": 1, "width": 8, "heads": 2, "growth": 4, "window": 4, "factors": [4, 4]}
    with pytest.raises(ModelError, match="base's factors"):
        networks.build("fasr", {**SMALL, "factors": [2, 2], "base": {"architecture": "rdst", "hyperparameters": inner}})


def test_far_from_the_reference_the_answer_is_that_without_one() -> None:
    """A reference that covers one side leaves the other as it would be alone: no artefact reaches across."""
    network, x = trained_looking(), torch.rand(1, 1, 8, 64)
    valid = torch.zeros(1, 1, 32, 256)
    valid[..., :64] = 1
    with torch.inference_mode():
        alone = network(x, torch.zeros(1, 1, 32, 256), torch.zeros_like(valid))
        partly = network(x, torch.rand(1, 1, 32, 256), valid)
    assert torch.equal(partly[..., 192:], alone[..., 192:])
    assert (partly[..., :64] - alone[..., :64]).abs().max() > 1e-3


def test_a_reference_of_the_wrong_size_or_a_bad_argument_is_refused() -> None:
    network = networks.build("fasr", SMALL)
    with pytest.raises(ValueError, match="expected"):
        network(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 16, 16))
    for wrong in (
        {"patch": 6},
        {"similarity": "l2"},
        {"size": "xl"},
        {"factors": [1, 1]},
        {"trust": [0.7, 0.3]},
        {"room": [0.0, -1.0]},
        {"colour": 3},
    ):
        with pytest.raises(ModelError, match="hyper-parameters"):
            networks.build("fasr", wrong)


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive at once, which is what an allocator of a GPU has to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most, self.known = 0, 0, set[int]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        return made

    def freed(self, storage: int, size: int) -> None:
        """A tensor's memory was given back."""
        self.known.discard(storage)
        self.now -= size


def bytes_alive(pixels: int) -> int:
    """Most bytes that the published size holds at once besides its weights, for a slice of `pixels` x `pixels`."""
    network = networks.build("fasr", {}).eval()
    with torch.inference_mode(), Alive() as alive:
        network(torch.rand(1, 1, pixels // 4, pixels // 4), torch.rand(1, 1, pixels, pixels))
    return alive.most


def test_a_slice_of_320_pixels_needs_less_than_1_gib_of_tensors() -> None:
    """The published size, weights included: where no GPU is, this tells that one of 2 GiB has the other half for its libraries.

    Tensors without values are counted, which takes no arithmetic; at 32 pixels tensors with values give the same number.
    """
    with FakeTensorMode():
        most = {pixels: bytes_alive(pixels) for pixels in (32, 96, 320)}
        weights = sum(value.nbytes for value in networks.build("fasr", {}).state_dict().values())
    assert most[32] == bytes_alive(32)
    assert 4 * 64 * 320**2 * 4 < most[320] + weights < 2**30  # four of its largest feature maps at least
    assert most[320] <= most[96] * (320 / 96) ** 2  # no faster than the pixels, as the next test takes for granted


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module to measure the peak memory with")
def test_a_slice_of_320_pixels_fits_in_3_gib() -> None:
    """The published size on a CPU, in its own process: peak memory, Python, torch and convolutions' own buffers included.

    Measured at 96 pixels; what a slice adds grows no faster than its pixels.
    """
    code = (
        "import pathlib, resource, sys, torch; torch.set_num_threads(1)\n"
        "from MRSuperResLib import networks\n"
        "def peak():\n"
        "    told = pathlib.Path('/proc/self/status')\n"  # Linux' ru_maxrss counts the process that started this one
        "    if told.exists(): return int(told.read_text().partition('VmHWM:')[2].split()[0]) * 1024\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)\n"
        "n = networks.build('fasr', {}).eval()\n"
        "with torch.inference_mode():\n"
        "    for size in (32, 96):\n"
        "        n(torch.rand(1, 1, size // 4, size // 4), torch.rand(1, 1, size, size)); print(peak())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, peak = map(int, done.stdout.split())
    assert peak > small  # the slice was seen, not only the libraries
    assert peak + (peak - small) * (320**2 - 96**2) / (96**2 - 32**2) < 3 * 2**30


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_slice_of_320_pixels_fits_in_2_gib_of_a_gpu() -> None:
    """The published size; what torch allocates, its weights included."""
    network = networks.build("fasr", {}).cuda().eval()
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        network(torch.rand(1, 1, 80, 80, device="cuda"), torch.rand(1, 1, 320, 320, device="cuda"))
    assert torch.cuda.max_memory_allocated() < 2 * 2**30


def test_fourier_loss_of_a_wave_is_its_weight_in_the_spectrum() -> None:
    """A cosine of amplitude a along a row of n has two coefficients of a * n / 2 (a * sqrt(n m) / 2 when unitary)."""
    column = torch.arange(16)
    wave = 0.5 * torch.cos(2 * torch.pi * 3 * column / 16).expand(1, 1, 8, 16)
    expected = 2 * 0.5 * np.sqrt(8 * 16) / 2 / (8 * 16)
    loss = FourierLoss()
    assert float(loss(wave, torch.zeros_like(wave))) == pytest.approx(expected, rel=1e-3)
    spectrum = torch.fft.fft2(torch.rand(2, 1, 9, 7), norm="ortho")
    image = torch.fft.ifft2(spectrum, norm="ortho").real
    assert float(loss(image, torch.zeros_like(image))) == pytest.approx(float(spectrum.abs().mean()), rel=1e-3)


def test_perceptual_loss_trains_the_image_and_not_its_network() -> None:
    loss = PerceptualLoss(fasr.TextureExtractor((4, 8, 8), channels=1))
    answer, truth = torch.rand(1, 1, 16, 16, requires_grad=True), torch.rand(1, 1, 16, 16)
    assert float(loss(truth, truth)) == 0
    loss(answer, truth).backward()
    assert answer.grad is not None and answer.grad.any()
    assert all(p.grad is None for p in loss.parameters()) and not loss.train().extractor.training
