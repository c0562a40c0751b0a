"""GumbelVQ, the VQGAN of the release (OpenImages, f = 8, 8,192 codes): images <-> grids of codes.

Legend: B batch, H/W image height and width, h/w = H/f, W/f the grid of codes, in row-major order.

Encoding takes the most likely code (argmax). The original samples it with Gumbel noise even at inference, so its codes
of one image differ from run to run; training targets must not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from healthgpt.files import load_torch_file, require_file, wrong_kind
from taming_transformers.autoencoder import Decoder, Encoder

CONFIG_NAME = "model.yaml"
WEIGHTS_NAME = "last.ckpt"
SAFE_WEIGHTS_NAME = "model.safetensors"  # taken where there is no last.ckpt
_TARGET = "taming.models.vqgan.GumbelVQ"
_TRAINING_ONLY = ("loss.",)  # a discriminator's weights, of no use once trained


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """The `model.params` of a taming-transformers `model.yaml`, names as there.

    Attributes:
        n_embed: number of codes.
        embed_dim: width of a code.
        resolution: side of the images in pixels; `ch_mult` has one entry per halving plus one.
    """

    embed_dim: int
    n_embed: int
    z_channels: int
    resolution: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    in_channels: int = 3
    out_ch: int = 3
    double_z: bool = False
    dropout: float = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes of one image."""
        side = self.resolution >> (len(self.ch_mult) - 1)
        return side, side

    @property
    def num_codes(self) -> int:
        return self.grid[0] * self.grid[1]


class Quantizer(nn.Module):
    """Features -> logits of each code, and codes -> their vectors."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.proj = nn.Conv2d(config.z_channels, config.n_embed, 1)
        self.embed = nn.Embedding(config.n_embed, config.embed_dim)


class GumbelVQ(nn.Module):
    """Encoder, codebook and decoder.

    Attributes:
        config: shapes.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        shared: dict[str, Any] = {
            "ch": config.ch,
            "ch_mult": config.ch_mult,
            "num_res_blocks": config.num_res_blocks,
            "attn_resolutions": config.attn_resolutions,
            "resolution": config.resolution,
            "z_channels": config.z_channels,
            "dropout": config.dropout,
        }
        self.encoder = Encoder(in_channels=config.in_channels, double_z=config.double_z, **shared)
        self.decoder = Decoder(out_ch=config.out_ch, **shared)
        self.quantize = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, h, w) codes, the most likely one at each place."""
        return self.quantize.proj(self.quant_conv(self.encoder(pixels))).argmax(dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> (B, 3, H, W), about [-1, 1]."""
        return self.decoder(self.post_quant_conv(self.quantize.embed(codes).permute(0, 3, 1, 2)))


def read_vqgan_config(folder: Path) -> VQGANConfig:
    """Reads the `model.yaml` in a folder.

    Raises:
        FileNotFoundError, ValueError: no such file, not a GumbelVQ, or a parameter is missing.
    """
    path = require_file(folder / CONFIG_NAME)
    try:
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
        if not str(model["target"]).endswith("GumbelVQ"):
            raise ValueError(f"{path}: target {model['target']!r} is not supported, expected a GumbelVQ")
        params = model["params"]
        ddconfig = dict(params["ddconfig"])
        return VQGANConfig(
            embed_dim=params["embed_dim"],
            n_embed=params["n_embed"],
            ch_mult=tuple(ddconfig.pop("ch_mult")),
            attn_resolutions=tuple(ddconfig.pop("attn_resolutions")),
            **ddconfig,
        )
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not the model.yaml of a GumbelVQ ({type(error).__name__}: {error})") from None


def write_vqgan_config(config: VQGANConfig, folder: Path) -> None:
    """Writes the `model.yaml` that `read_vqgan_config` reads."""
    ddconfig = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    params = {key: ddconfig.pop(key) for key in ("embed_dim", "n_embed")}
    model = {"target": _TARGET, "params": {**params, "ddconfig": ddconfig}}
    (folder / CONFIG_NAME).write_text(yaml.safe_dump({"model": model}), encoding="utf-8")


def load_vqgan(folder: Path) -> GumbelVQ:
    """Builds the VQGAN of a folder with `model.yaml` and its weights, float32, frozen.

    The weights are `last.ckpt` (PyTorch Lightning's layout) or, where there is none, `model.safetensors`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, not what its name says, or does not fit the other one.
    """
    with torch.device("meta"):
        model = GumbelVQ(read_vqgan_config(folder))
    path, weights = _read_weights(folder)
    weights = {key: value for key, value in weights.items() if not key.startswith(_TRAINING_ONLY)}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise ValueError(f"{path}: {key} has shape {found.get(key)}, {CONFIG_NAME} asks for {expected.get(key)}")
    model.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _read_weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file of a folder's weights, and the tensors in it."""
    path, safe = folder / WEIGHTS_NAME, folder / SAFE_WEIGHTS_NAME
    if safe.exists() and not path.exists():
        return safe, _read_safetensors(safe)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file, nor a {SAFE_WEIGHTS_NAME} beside it")
    checkpoint = load_torch_file(path)
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: has no state_dict; expected a checkpoint of PyTorch Lightning")
    return path, weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if kind := wrong_kind(require_file(path)):
        raise ValueError(f"{path}: {kind}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged or truncated ({error})") from None
