"""The VQGAN decodes as the original's, and its files are checked."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import GOLDEN
from PIL import Image
from safetensors.torch import load_file

from healthgpt.targets import as_image
from taming_transformers import GumbelVQ, VQGANConfig, load_vqgan
from taming_transformers.vqgan import read_vqgan_config

FOLDER = GOLDEN / "vqgan"


@pytest.fixture(scope="module")
def vqgan():
    return load_vqgan(FOLDER)


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "expected.safetensors")


@pytest.mark.parametrize(("codes", "pixels"), [("random_indices", "random_decoded"), ("indices", "reconstruction")])
def test_decoding_is_the_originals(vqgan, expected, codes, pixels):
    decoded = vqgan.decode(expected[codes].long().view(1, *vqgan.config.grid))
    torch.testing.assert_close(decoded, expected[pixels], atol=1e-4, rtol=0)


def test_the_drawn_picture_is_the_originals(vqgan, expected):
    decoded = vqgan.decode(expected["random_indices"].long().view(1, *vqgan.config.grid))
    picture = np.asarray(Image.open(FOLDER / "decoded_random.png").convert("RGB")).astype(int)
    assert np.abs(np.asarray(as_image(decoded[0])).astype(int) - picture).max() <= 1


def test_encoding_is_the_likeliest_code_and_always_the_same(vqgan, expected):
    codes = vqgan.encode(expected["input"])
    assert codes.shape == (1, *vqgan.config.grid)
    assert torch.equal(codes, vqgan.encode(expected["input"]))
    logits = vqgan.quantize.proj(vqgan.quant_conv(vqgan.encoder(expected["input"])))
    assert torch.equal(logits.gather(1, codes.unsqueeze(1)).squeeze(1), logits.amax(dim=1))
    # The original drew its codes from the softmax of these logits: they are as likely as such draws are on average.
    log_p = logits.log_softmax(dim=1)[0].flatten(1)
    drawn = log_p[expected["indices"].long(), torch.arange(64)].mean()
    assert abs(drawn - (log_p.exp() * log_p).sum(dim=0).mean()) < 0.05


def test_the_released_configuration_has_the_released_inventory():
    """301 tensors and 68,995,971 parameters, as the original's own instantiation."""
    config = read_vqgan_config(GOLDEN.parents[1] / "taming_transformers" / "ckpt")
    assert config.grid == (32, 32)
    assert config.num_codes == 1024
    with torch.device("meta"):
        tensors = GumbelVQ(config).state_dict()
    assert len(tensors) == 301
    assert sum(tensor.numel() for tensor in tensors.values()) == 68_995_971
    assert tensors["decoder.up.2.block.0.nin_shortcut.weight"].shape == (256, 512, 1, 1)
    assert tensors["encoder.down.3.attn.0.q.weight"].shape == (512, 512, 1, 1)


def test_trained_leftovers_are_allowed_and_everything_else_is_counted(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "vqgan")
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    weights = checkpoint["state_dict"]
    weights["loss.discriminator.weight"] = torch.zeros(3)
    torch.save(checkpoint, folder / "last.ckpt")
    load_vqgan(folder)
    for edit, message in (
        (lambda: weights.update({"extra": torch.zeros(2)}), r"extra has shape \(2,\), model.yaml asks for None"),
        (lambda: weights.pop("extra") is None or weights.pop("quant_conv.bias"), r"quant_conv\.bias has shape None"),
        (lambda: weights.update({"quant_conv.bias": torch.zeros(7)}), r"quant_conv\.bias has shape \(7,\)"),
    ):
        edit()
        torch.save(checkpoint, folder / "last.ckpt")
        with pytest.raises(ValueError, match=message):
            load_vqgan(folder)
    torch.save({"epoch": 1, "weights": torch.zeros(3)}, folder / "last.ckpt")
    with pytest.raises(ValueError, match="has no state_dict"):
        load_vqgan(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "taming.models.vqgan.VQModel"}, "target 'taming.models.vqgan.VQModel' is not supported"),
        ({"params": {"embed_dim": 3}}, "not the model.yaml of a GumbelVQ"),
        ({"params": None}, "not the model.yaml of a GumbelVQ"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, change, message):
    model = yaml.safe_load((FOLDER / "model.yaml").read_text())["model"]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": model | change}))
    with pytest.raises(ValueError, match=message):
        load_vqgan(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.yaml: no such file"):
        load_vqgan(tmp_path)
    shutil.copy(FOLDER / "model.yaml", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt: no such file"):
        load_vqgan(tmp_path)
    (tmp_path / "last.ckpt").write_text("<!DOCTYPE html><title>heibox</title>")
    with pytest.raises(ValueError, match=r"last\.ckpt: a web page"):
        load_vqgan(tmp_path)


def test_the_grid_follows_from_the_configuration():
    config = VQGANConfig(
        embed_dim=32, n_embed=8, z_channels=32, resolution=96, ch=32, ch_mult=(1, 1, 2, 2), num_res_blocks=1,
        attn_resolutions=(12,),
    )  # fmt: skip
    model = GumbelVQ(config)
    assert config.grid == (12, 12)
    codes = model.encode(torch.randn(2, 3, 96, 96))
    assert codes.shape == (2, 12, 12)
    assert model.decode(codes).shape == (2, 3, 96, 96)
