"""Trains the nano ViT: CLIP on pictures and captions, with heads that find what LLaVA-style reading needs.

Legend: B batch, S side, P patches, T tokens of a caption, K classes of findings (0 for none).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, set_seed

from healthgpt.nano.captions import CaptionTable
from healthgpt.nano.part import Part, PartSettings, finished, round_to_half, train_part
from healthgpt.nano.pictures import Pictures, moved, read_pictures
from healthgpt.random_model import CLIP_MEAN, CLIP_STD, save_vit

NAME = "vit"
# Of hidden_states, whose patches the language model reads: to draw, and to answer.
_CONCRETE_LAYER, _ABSTRACT_LAYER = 1, -2
_SCORED_AT_ONCE = 96


@dataclass(frozen=True, kw_only=True)
class ViTSettings(PartSettings):
    """How the ViT is trained.

    Attributes:
        cover: part of a patch that a lesion has to cover to make it a patch of the finding.
        patch_weight, picture_weight: of the heads' losses beside the contrastive one.
    """

    steps: int = 2400
    batch_size: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    width: int = 160
    layers: int = 6
    heads: int = 5
    patch: int = 8
    text_width: int = 128
    text_layers: int = 2
    text_length: int = 64
    text_vocabulary: int = 1000
    cover: float = 0.15
    patch_weight: float = 2.0
    picture_weight: float = 0.5
    shift: int = 3

    def config(self, side: int, captions: CaptionTable) -> CLIPConfig:
        """CLIP's shapes for pictures of a side and their captions."""
        vision = {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "image_size": side,
            "patch_size": self.patch,
        }
        text = {
            "hidden_size": self.text_width,
            "intermediate_size": 4 * self.text_width,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": 4,
            "max_position_embeddings": captions.ids.shape[1],
            "vocab_size": captions.vocabulary,
            "bos_token_id": 1,
            "eos_token_id": captions.end_id,
            "pad_token_id": captions.end_id,
        }
        return CLIPConfig(text_config=text, vision_config=vision, projection_dim=self.text_width)


class ViTInTraining(nn.Module):
    """CLIP and linear heads on the patches that the language model will read; only the vision tower stays.

    Lesions have to show in the concrete features too: without a head there, a linear look at them found a fifth.
    """

    class_weights: Tensor

    def __init__(self, settings: ViTSettings, pictures: Pictures, captions: CaptionTable, num_classes: int):
        super().__init__()
        self.settings = settings
        self.clip = CLIPModel(settings.config(pictures.images.shape[1], captions))
        self.clip.set_attn_implementation("eager")  # for so few positions, on a CPU, 40 % faster than the fused one
        self.concrete_head = nn.Linear(settings.width, num_classes)
        self.abstract_head = nn.Linear(settings.width, num_classes)
        self.picture_head = nn.Linear(settings.width, num_classes)
        targets = self.patch_targets(pictures.lesions, pictures.kinds)
        counts = torch.bincount(targets.flatten(), minlength=num_classes).float().clamp(min=1)
        weights = (counts.sum() / counts).sqrt()  # half-way to balance: healthy patches are nearly all there are
        self.register_buffer("class_weights", weights / weights.mean(), persistent=False)

    def forward(self, images: Tensor, lesions: Tensor, kinds: Tensor, texts: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """(B, S, S, 3) uint8, (B, S, S), (B,), captions' numbers (B,) and tokens (B, T) -> the loss."""
        both = torch.cat([as_clip_pixels(images), (lesions > 0).float().unsqueeze(1)], dim=1)
        both = moved(both, self.settings.shift)
        pooled, patch_logits, picture_logits = self.look(both[:, :3])
        logits = self.matches(pooled, ids) * self.clip.logit_scale.exp().clamp(max=100)
        same = (texts[:, None] == texts[None, :]).float()
        same = same / same.sum(dim=1, keepdim=True)
        contrastive = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
        targets = self.patch_targets(both[:, 3], kinds).expand(2, -1, -1)
        patch_loss = F.cross_entropy(patch_logits.flatten(0, 2).float(), targets.flatten(), weight=self.class_weights)
        picture_loss = F.cross_entropy(picture_logits.float(), kinds)
        settings = self.settings
        return {"loss": contrastive + settings.patch_weight * patch_loss + settings.picture_weight * picture_loss}

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) -> pooled features (B, width), logits of patches (2, B, P, K) and of pictures (B, K).

        The patches are the concrete and the abstract ones.
        """
        seen = self.clip.vision_model(pixels, output_hidden_states=True)
        concrete, abstract = (seen.hidden_states[layer][:, 1:] for layer in (_CONCRETE_LAYER, _ABSTRACT_LAYER))
        patch_logits = torch.stack([self.concrete_head(concrete), self.abstract_head(abstract)])
        return seen.pooler_output, patch_logits, self.picture_head(abstract.mean(dim=1))

    def matches(self, pooled: Tensor, ids: Tensor) -> Tensor:
        """(B, width) and (B, T) -> (B, B) cosines of pictures (rows) and captions, float32."""
        pictures = F.normalize(self.clip.visual_projection(pooled).float(), dim=1)
        texts = F.normalize(self.clip.get_text_features(input_ids=ids).pooler_output.float(), dim=1)
        return pictures @ texts.T

    def patch_targets(self, lesions: Tensor, kinds: Tensor) -> Tensor:
        """(B, S, S) and (B,) -> (B, P) the finding's class where a lesion covers enough of the patch, else 0."""
        cover = F.avg_pool2d((lesions > 0).float().unsqueeze(1), self.settings.patch).flatten(1)
        return (cover >= self.settings.cover) * kinds.unsqueeze(1)


def train_vit(data: Path, output: Path, settings: ViTSettings = ViTSettings()) -> Path:
    """Trains the ViT on a file of pictures; returns its folder, OUTPUT/vit."""
    if folder := finished(output, NAME):
        return folder
    everything = read_pictures(data)
    captions = CaptionTable(everything.captions, settings.text_vocabulary, settings.text_length)
    pictures, held_out = everything.split()
    set_seed(settings.seed)
    model = ViTInTraining(settings, pictures, captions, num_classes=int(everything.kinds.max()) + 1)
    if settings.compile:
        for block in (*model.clip.vision_model.encoder.layers, *model.clip.text_model.encoder.layers):
            block.compile(dynamic=True)

    def collate(places: list[int]) -> dict[str, Tensor]:
        texts = captions.drawn(places)
        return {
            "images": pictures.images[places],
            "lesions": pictures.lesions[places],
            "kinds": pictures.kinds[places],
            "texts": texts,
            "ids": captions.tokens(texts),
        }

    part = Part(
        name=NAME,
        output=output,
        data=data,
        settings=settings,
        model=model,
        num_examples=len(pictures),
        collate=collate,
        score=lambda: score_vit(model, held_out, captions, first=len(pictures)),
        write=lambda folder: write_vit(model, folder),
    )
    return train_part(part)


def write_vit(model: ViTInTraining, folder: Path) -> None:
    """Writes the vision tower's folder, weights rounded to float16 and stored as float32."""
    vision = model.clip.vision_model
    round_to_half(vision)
    folder.mkdir(parents=True, exist_ok=True)
    save_vit(vision, folder)


def score_vit(model: ViTInTraining, pictures: Pictures, captions: CaptionTable, first: int) -> dict[str, float]:
    """Accuracies: of patches with a lesion, concrete and abstract, of abstract patches, of pictures' findings, and of
    first captions among up to 96.

    Args:
        first: place of the first of the pictures in the table of captions.
    """
    device = model.class_weights.device
    hits: dict[str, list[Tensor]] = defaultdict(list)
    for start in range(0, len(pictures), _SCORED_AT_ONCE):
        places = slice(start, start + _SCORED_AT_ONCE)
        kinds = pictures.kinds[places].to(device)
        texts = captions.texts[first + start : first + start + len(kinds), 0].to(device)
        pooled, patch_logits, picture_logits = model.look(as_clip_pixels(pictures.images[places].to(device)))
        targets = model.patch_targets(pictures.lesions[places].to(device), kinds)
        right = patch_logits.argmax(dim=-1) == targets
        hits["patches"].append(right[1].flatten())
        hits["concrete_lesion_patches"].append(right[0, targets > 0])
        hits["lesion_patches"].append(right[1, targets > 0])
        hits["findings"].append(picture_logits.argmax(dim=1) == kinds)
        matched = model.matches(pooled, captions.tokens(texts.cpu()).to(device)).argmax(dim=1)
        hits["captions"].append(texts[matched] == texts)
    joined = {name: torch.cat(parts).float() for name, parts in hits.items()}
    return {name: values.mean().item() if len(values) else 0.0 for name, values in joined.items()}


def as_clip_pixels(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, as CLIP's image processor gives pictures of the right size."""
    mean = torch.tensor(CLIP_MEAN, device=images.device)
    std = torch.tensor(CLIP_STD, device=images.device)
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
