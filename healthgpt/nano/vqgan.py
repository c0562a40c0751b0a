"""Trains the nano VQGAN: a GumbelVQ (f = 8) without a discriminator, for pixels and structural similarity.

Legend: B batch, S side, h/w the grid of codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import set_seed

from healthgpt.nano.codebook import Codebook
from healthgpt.nano.part import Part, PartSettings, finished, round_to_half, train_part
from healthgpt.nano.pictures import Pictures, read_pictures
from healthgpt.nano.similarity import ssim
from taming_transformers import GumbelVQ, VQGANConfig
from taming_transformers.vqgan import SAFE_WEIGHTS_NAME, write_vqgan_config

NAME = "vqgan"
_SCORED_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class VQGANSettings(PartSettings):
    """How the VQGAN is trained.

    Attributes:
        width: of a code.
        lesion_weight: what a lesion's pixel counts for beyond a healthy one's.
        free_steps: first steps without a codebook.
    """

    steps: int = 4200
    batch_size: int = 32
    learning_rate: float = 1e-3
    num_codes: int = 1024
    width: int = 32
    ch: int = 32
    ch_mult: tuple[int, ...] = (1, 1, 2, 4)
    lesion_weight: float = 6.0
    ssim_weight: float = 0.5
    commitment_weight: float = 0.25
    free_steps: int = 150

    def config(self, side: int) -> VQGANConfig:
        """The VQGAN's shapes for pictures of a side."""
        return VQGANConfig(
            embed_dim=self.width,
            n_embed=self.num_codes,
            z_channels=self.width,
            resolution=side,
            ch=self.ch,
            ch_mult=self.ch_mult,
            num_res_blocks=1,
            attn_resolutions=(),
        )


class VQGANInTraining(nn.Module):
    """A GumbelVQ whose codes a `Codebook` learns.

    Attributes:
        vqgan: its quantiser's weights are idle until `export`.
    """

    def __init__(self, settings: VQGANSettings, side: int):
        super().__init__()
        self.settings = settings
        self.vqgan = GumbelVQ(settings.config(side))
        self.vqgan.quantize.requires_grad_(False)
        self.codebook = Codebook(settings.num_codes, settings.width, settings.free_steps)

    def forward(self, images: Tensor, lesions: Tensor) -> dict[str, Tensor]:
        """(B, S, S, 3) uint8 and (B, S, S) -> the loss."""
        pixels, mask = as_pixels(images), (lesions > 0).float().unsqueeze(1)
        drawn, commitment = self.reconstruct(pixels)
        weights = 1 + self.settings.lesion_weight * mask
        difference = drawn - pixels
        error = ((difference.abs() + difference.square()) * weights).mean() / weights.mean()
        dissimilarity = 1 - ssim(drawn / 2 + 0.5, pixels / 2 + 0.5).mean()
        loss = error + self.settings.ssim_weight * dissimilarity + self.settings.commitment_weight * commitment
        return {"loss": loss}

    def reconstruct(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [-1, 1] -> the same through the codes, float32, and the commitment loss."""
        quantised, commitment = self.codebook(self.vqgan.quant_conv(self.vqgan.encoder(pixels)))
        return self.vqgan.decoder(self.vqgan.post_quant_conv(quantised)).float(), commitment

    def export(self) -> GumbelVQ:
        """The plain GumbelVQ, weights rounded to float16: its logits are cosines, so its argmax is the codebook's."""
        codes = self.codebook.codes
        with torch.no_grad():
            self.vqgan.quantize.proj.weight.copy_(codes[:, :, None, None])
            nn.init.zeros_(self.vqgan.quantize.proj.bias)  # type: ignore[arg-type]  # a Conv2d with a bias
            self.vqgan.quantize.embed.weight.copy_(codes)
        round_to_half(self.vqgan)
        return self.vqgan


def train_vqgan(data: Path, output: Path, settings: VQGANSettings = VQGANSettings()) -> Path:
    """Trains the VQGAN on a file of pictures; returns its folder, OUTPUT/vqgan."""
    if folder := finished(output, NAME):
        return folder
    pictures, held_out = read_pictures(data).split()
    set_seed(settings.seed)
    model = VQGANInTraining(settings, side=pictures.images.shape[1])
    part = Part(
        name=NAME,
        output=output,
        data=data,
        settings=settings,
        model=model,
        num_examples=len(pictures),
        collate=lambda places: {"images": pictures.images[places], "lesions": pictures.lesions[places]},
        score=lambda: score_vqgan(model, held_out),
        write=lambda folder: write_vqgan(model.export(), folder),
    )
    return train_part(part)


def write_vqgan(vqgan: GumbelVQ, folder: Path) -> None:
    """Writes a VQGAN's folder: `model.yaml` and float32 weights as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vqgan_config(vqgan.config, folder)
    save_file({key: value.contiguous() for key, value in vqgan.state_dict().items()}, folder / SAFE_WEIGHTS_NAME)


def score_vqgan(model: VQGANInTraining, pictures: Pictures) -> dict[str, float]:
    """Mean error of a pixel (of [-1, 1]), over everything and over lesions, SSIM, and how many codes are in use."""
    device = model.codebook.codes.device
    errors, lesion_errors, similarities, used = [], [], [], torch.zeros(len(model.codebook.codes), dtype=torch.bool)
    for images, lesions in zip(
        pictures.images.split(_SCORED_AT_ONCE), pictures.lesions.split(_SCORED_AT_ONCE), strict=True
    ):
        pixels = as_pixels(images.to(device))
        drawn, _ = model.reconstruct(pixels)
        difference = (drawn.clamp(-1, 1) - pixels).abs().mean(dim=1)
        errors.append(difference.flatten())
        lesion_errors.append(difference[lesions.to(device) > 0])
        similarities.append(ssim(drawn.clamp(-1, 1) / 2 + 0.5, pixels / 2 + 0.5))
        features = F.normalize(model.vqgan.quant_conv(model.vqgan.encoder(pixels)), dim=1)
        used[torch.einsum("bdhw,kd->bhwk", features, model.codebook.codes).argmax(dim=3).unique().cpu()] = True
    lesion_error = torch.cat(lesion_errors)
    return {
        "l1": torch.cat(errors).mean().item(),
        "lesion_l1": lesion_error.mean().item() if len(lesion_error) else 0.0,
        "ssim": torch.cat(similarities).mean().item(),
        "codes_in_use": float(used.sum()),
    }


def as_pixels(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
