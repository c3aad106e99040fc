"""What teaches disvit: the swapping autoencoder's codes, UNETR's features, and the cosine losses of both."""

from __future__ import annotations

from pathlib import Path

import monai.networks.nets as monai_networks
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from MRSuperResLib.errors import ModelError
from MRSuperResLib.losses.adversarial import FAKE, REAL, logistic_loss
from MRSuperResLib.losses.cosine import CosineLosses, cosine_loss, read_autoencoder, teacher_file
from MRSuperResLib.losses.unetr import SIZES, NamingUNETR, ViTFeatures, read_transformer, unetr
from MRSuperResLib.networks.swap_autoencoder import Codes, SwapAutoencoder, swapped


def test_codes_have_the_published_sizes() -> None:
    """Section 4.1: the input is 256x256, z_tex has 256 values, z_str is 64x64."""
    with torch.device("meta"):
        network = SwapAutoencoder()
        codes = network.encoder(torch.zeros(2, 1, 256, 256))
        assert network.decoder(codes).shape == (2, 1, 256, 256)
    assert codes.structure.shape == (2, 1, 64, 64) and codes.texture.shape == (2, 256)
    widths = [[block.out_channels for block in part.blocks] for part in (network.encoder, network.decoder)]
    assert widths == [[64, 64, 32, 32], [32, 32, 64, 64]]
    # 3x3 kernels and biases of eight blocks, the structure's channel more, and its 1x1, both texture layers and the image
    convolutions = (1, 64), (64, 64), (64, 32), (32, 32), (32, 32), (32, 32), (33, 64), (64, 64), (64, 1)
    expected = sum(9 * a * b + b for a, b in convolutions) + (64 + 1) + (32 * 256 + 256) + (256 * 32 + 32)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_texture_knows_no_place_and_structure_does() -> None:
    """An image shifted by a whole pooled pixel, in air: the same texture, the structure moved along."""
    torch.manual_seed(0)
    encoder = SwapAutoencoder().encoder
    image = torch.zeros(1, 1, 128, 128)
    image[..., 48:80, 48:80] = torch.rand(32, 32)
    here, there = encoder(image), encoder(image.roll(16, -1))
    torch.testing.assert_close(here.texture, there.texture)
    inner = (..., slice(4, -4), slice(8, -4))  # what the image's border does not reach
    torch.testing.assert_close(here.structure.roll(4, -1)[inner], there.structure[inner])
    assert not torch.allclose(here.structure, there.structure)


def test_swapping_exchanges_textures_and_keeps_structures() -> None:
    codes = Codes(torch.rand(3, 1, 4, 4), torch.rand(3, 8))
    other = swapped(codes)
    assert torch.equal(other.structure, codes.structure)
    assert torch.equal(other.texture, codes.texture[[2, 0, 1]])


def test_both_codes_reach_the_image() -> None:
    torch.manual_seed(0)
    network = SwapAutoencoder()
    codes = network.encoder(torch.rand(2, 1, 32, 48))
    image = network.decoder(codes)
    assert not torch.allclose(image, network.decoder(swapped(codes)))
    assert not torch.allclose(image, network.decoder(Codes(codes.structure + 1, codes.texture)))


def test_published_size_of_unetr() -> None:
    """92.58 M parameters for 96x96x96 voxels (appendix D); 12 layers of 768, ViT-B/16 (appendix B).

    MONAI's has 12 norms of 768 for a cross-attention that it does not use, which are not counted here.
    """
    with torch.device("meta"):
        network = unetr("published")
    unused = sum(p.numel() for name, p in network.named_parameters() if "norm_cross_attn" in name)
    assert unused == 12 * 2 * 768
    assert sum(p.numel() for p in network.parameters()) - unused == pytest.approx(92.58e6, rel=0.003)
    assert len(network.vit.blocks) == 12 and network.vit.norm.normalized_shape == (768,)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("size", ["b", "s"])
def test_unetr_in_two_dimensions_has_the_published_layers(size: str) -> None:
    with torch.device("meta"):
        network = unetr(size)
        logits = network(torch.zeros(2, 1, 128, 128))
    assert logits.shape == (2, 5, 128, 128)
    assert len(network.vit.blocks) == 12  # type: ignore[arg-type]
    assert network.vit.patch_embedding.patch_embeddings.kernel_size == (16, 16)  # type: ignore[union-attr]


def small_transformer() -> ViTFeatures:
    torch.manual_seed(0)
    network = monai_networks.UNETR(
        in_channels=1, out_channels=2, img_size=(48, 48), spatial_dims=2, hidden_size=64, mlp_dim=256, num_heads=1
    )
    return ViTFeatures(network).eval()


def test_vit_features_are_monais() -> None:
    features = small_transformer()
    image = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(features(image), features.vit(image)[0])


def test_vit_features_of_another_size_have_interpolated_positions() -> None:
    """A grid of positions that rises along columns still does, whatever the grid's size."""
    features = small_transformer()
    assert features(torch.rand(2, 1, 32, 80)).shape == (2, 2 * 5, 64)
    features.vit.blocks = nn.ModuleList()
    features.vit.norm = nn.Identity()
    nn.init.zeros_(features.vit.patch_embedding.patch_embeddings.weight)
    nn.init.zeros_(features.vit.patch_embedding.patch_embeddings.bias)
    rising = torch.arange(3.0).repeat(3)[None, :, None].expand(1, 9, 64)  # row by row
    features.vit.patch_embedding.position_embeddings.data = rising.clone()
    with torch.no_grad():
        found = features(torch.rand(1, 1, 96, 96)).unflatten(1, (6, 6))[0, ..., 0]
    assert (found.diff(dim=1) > 0.1).all() and found.diff(dim=0).abs().max() < 1e-5


def test_naming_starts_without_a_preference() -> None:
    """Section 3.2: the layer that names is initialised with zeros; its first gradient is not zero."""
    namer = NamingUNETR(unetr("s"), 3)
    logits = namer(torch.rand(2, 1, 128, 128), naming=True)
    assert torch.equal(logits, torch.zeros(2, 3))
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert namer.head.weight.grad is not None and namer.head.weight.grad.abs().max() > 0


def test_cosine_losses_are_equations_7_and_8() -> None:
    one, two = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [0.0, 5.0]])
    assert cosine_loss(one, two).item() == pytest.approx((0 + 1) / 2)
    assert cosine_loss(one, -one).item() == pytest.approx(2)


def test_cosine_losses_lead_to_the_other_image() -> None:
    """Each is 0 for the same image, positive for another; gradients reach the answer, never the networks or the other image."""
    torch.manual_seed(0)
    losses = CosineLosses(SwapAutoencoder(), small_transformer()).train()
    assert not losses.training
    image = torch.rand(2, 1, 48, 50, requires_grad=True)
    for name, value in losses(image, image.detach()).items():
        assert value.item() == pytest.approx(0, abs=1e-5), name
    other = torch.ones(2, 1, 48, 50)
    other[..., 20:] = 0
    other.requires_grad_()
    found = losses(image, other)
    assert set(found) == {"structure", "texture", "vit"} and all(value > 1e-4 for value in found.values())
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert image.grad is not None and image.grad[..., :48].abs().max() > 0 and other.grad is None
    assert all(p.grad is None for p in losses.parameters())


def test_only_the_teachers_there_are_asked() -> None:
    assert set(CosineLosses(SwapAutoencoder())(*torch.rand(2, 1, 1, 16, 16))) == {"structure", "texture"}
    assert set(CosineLosses(None, small_transformer())(*torch.rand(2, 1, 1, 16, 16))) == {"vit"}


def test_logistic_loss_is_minus_log_d() -> None:
    logits = torch.tensor([-2.0, 0.5, 3.0])
    d = torch.sigmoid(logits)
    assert logistic_loss(logits, REAL).item() == pytest.approx(-d.log().mean().item())  # eq. 4
    assert logistic_loss(logits, FAKE).item() == pytest.approx(-(1 - d).log().mean().item())


def saved(weights: dict[str, Tensor], path: Path) -> Path:
    save_file({name: value.half().contiguous() for name, value in weights.items()}, path)
    return path


def test_teachers_come_back_from_their_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder, transformer = SwapAutoencoder((8, 8, 4, 4), 12), ViTFeatures(unetr("s")).eval()
    image = torch.rand(1, 1, 64, 48)
    with torch.no_grad():
        again = read_autoencoder(saved(autoencoder.state_dict(), tmp_path / "a.safetensors"))
        torch.testing.assert_close(again(image), autoencoder(image), atol=1e-3, rtol=0)
        found = read_transformer(saved(transformer.state_dict(), tmp_path / "t.safetensors"))
        torch.testing.assert_close(found(image), transformer(image), atol=3e-2, rtol=0)
    assert SIZES["s"]["side"] == 128


@pytest.mark.parametrize("read", [read_autoencoder, read_transformer])
def test_files_of_something_else_are_refused(read: object, tmp_path: Path) -> None:
    wrong = saved({"weight": torch.zeros(2)}, tmp_path / "wrong.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for path in (wrong, tmp_path / "text.safetensors", tmp_path / "missing.safetensors"):
        with pytest.raises(ModelError, match=f"{path.name} holds no"):
            read(path)  # type: ignore[operator]


def test_the_teachers_that_ship_are_found_by_name_and_know_something() -> None:
    """An image through its codes resembles itself more than another's; files in the working folder come first."""
    autoencoder, transformer = (
        read_autoencoder("autoencoder.safetensors"),
        read_transformer("transformer-s.safetensors"),
    )
    assert [block.out_channels for block in autoencoder.encoder.blocks] == [64, 64, 32, 32]
    axis = torch.linspace(-1, 1, 96)
    head = ((axis[:, None] ** 2 + axis**2) < 0.7).float()
    image = torch.stack((head * (0.6 + 0.2 * torch.sin(9 * axis)), head * (0.4 + 0.3 * torch.cos(7 * axis[:, None]))))[
        :, None
    ]
    with torch.no_grad():
        again, _ = autoencoder(image)
        features = transformer(image)
    assert (again - image).square().mean() < 0.5 * (again - image.flip(0)).square().mean()
    assert features.isfinite().all() and (features[0] - features[1]).abs().mean() > 0.05
    for name in ("autoencoder.safetensors", "transformer-s.safetensors"):
        assert teacher_file(name).stat().st_size < 16 * 2**20


def test_a_teacher_in_the_working_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(SwapAutoencoder((8, 8, 4, 4), 12).state_dict(), tmp_path / "autoencoder.safetensors")
    assert read_autoencoder("autoencoder.safetensors").encoder.blocks[0].out_channels == 8
