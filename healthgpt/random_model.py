"""Model folders with random weights: true in every file, key and shape, and knowing nothing.

They carry tests and benchmarks: the base has Phi-3's architecture
and tokenizer layout, at any size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from healthgpt.checking import base_shapes
from healthgpt.checkpoints import BaseShapes, Plugin, write_fusion, write_task_folder
from healthgpt.config import ALPHA_PER_RANK, CONFIG_NAME, FolderConfig
from healthgpt.phi3_tokenizer import ADDED_TOKENS, write_phi3_tokenizer
from healthgpt.tasks import Task
from healthgpt.tokenization import load_tokenizer
from healthgpt.vocabulary import ImageVocabulary

# Enough text for SentencePiece to learn a few hundred pieces from.
_SENTENCES = (
    "You are a helpful AI assistant.",
    "What modality is used to take this image? It is a chest X-ray.",
    "Is there evidence of a pleural effusion on the left side? Yes or no.",
    "The CT scan of the brain shows no acute intracranial haemorrhage or mass effect.",
    "Which organ is abnormal? The liver, the kidney, the spleen or the lung?",
    "The MRI shows a lesion of the right temporal lobe, about 12 mm wide, bright on T2.",
    "Describe the image in detail, including any lesion, its side, size and severity.",
    "Turn this CT into an MRI. Reconstruct the image. Improve the resolution of the scan.",
    "The heart is enlarged; there is no pneumothorax and no consolidation.",
    "Fundus photograph, optical coherence tomography, ultrasound and microscopy of tissue.",
)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class RandomShape:
    """Sizes of a random model; the defaults make one of about two million parameters.

    Attributes:
        width, layers, heads, kv_heads, mlp: of the Phi-3-architecture LLM.
        vocabulary: rows of its embeddings (at least the tokenizer's).
        vision_width, vision_layers, image_side: of the ViT, with patches of 14 pixels.
        ranks: merged H-LoRA rank per task.
        num_experts: E.
        init_std: of the LLM's random weights.
        num_codes: N, codes of the VQGAN, whose images have a side of `drawing_side` pixels (f = 8).
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 4
    mlp: int = 128
    vocabulary: int = 512
    init_std: float = 0.02
    vision_width: int = 48
    vision_layers: int = 4
    image_side: int = 56
    ranks: tuple[tuple[Task, int], ...] = ((Task.COMPREHENSION, 8), (Task.GENERATION, 16))
    num_experts: int = 4
    num_codes: int = 64
    drawing_side: int = 64
    dtype: torch.dtype = torch.float32


def write_random_model(folder: Path, shape: RandomShape = RandomShape(), seed: int = 0) -> Path:
    """Writes a whole model folder, the same for the same shape and seed; returns it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_random_base(folder / "base", shape)
        _write_vit(folder / "vit", shape)
        _write_vqgan(folder / "vqgan", shape)
        _write_plugins(folder, shape)
    config = FolderConfig(
        template="phi3_instruct",
        base="base",
        vit="vit",
        vqgan="vqgan",
        num_image_tokens=shape.num_codes,
        apply_fusion=True,
    )
    (folder / CONFIG_NAME).write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    return folder


def write_random_base(folder: Path, shape: RandomShape) -> None:
    """Writes the base LLM's folder: configuration, tokenizer, safetensors shards."""
    save_model(new_base(folder, shape, write_phi3_tokenizer(folder, _SENTENCES * 4, vocabulary=400)), folder)


def new_base(folder: Path, shape: RandomShape, first_added: int) -> PreTrainedModel:
    """A Phi-3 with random weights for the tokenizer in a folder, whose generation configuration is written there.

    Args:
        first_added: id of the tokenizer's first added token, as `write_phi3_tokenizer` returns it.
    """
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    end_of_text, assistant, end = first_added, first_added + 1, first_added + 7
    config = Phi3Config(
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=max(shape.vocabulary, first_added + len(ADDED_TOKENS)),
        initializer_range=shape.init_std,
        sliding_window=2047,
        bos_token_id=1,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
        dtype=shape.dtype,
    )
    model = Phi3ForCausalLM(config).to(shape.dtype)
    model.generation_config = GenerationConfig(
        bos_token_id=1, eos_token_id=[end_of_text, assistant, end], pad_token_id=end_of_text
    )
    model.generation_config.save_pretrained(folder)
    return model


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Configuration and weights as `save_pretrained` writes them (which would first load whatever trains models)."""
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


def _write_vit(folder: Path, shape: RandomShape) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=2 * shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=4,
        image_size=shape.image_side,
        patch_size=14,
    )
    save_vit(CLIPVisionModel(config), folder)


def save_vit(model: PreTrainedModel, folder: Path) -> None:
    """Writes a ViT's folder: configuration, weights, and how CLIP prepares images for it."""
    save_model(model, folder)
    side = model.config.image_size
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _write_vqgan(folder: Path, shape: RandomShape) -> None:
    from taming_transformers.vqgan import WEIGHTS_NAME, GumbelVQ, VQGANConfig, write_vqgan_config

    folder.mkdir(parents=True, exist_ok=True)
    config = VQGANConfig(
        embed_dim=32,
        n_embed=shape.num_codes,
        z_channels=32,
        resolution=shape.drawing_side,
        ch=32,
        ch_mult=(1, 1, 2, 2),
        num_res_blocks=1,
        attn_resolutions=(shape.drawing_side // 8,),
    )
    write_vqgan_config(config, folder)
    torch.save({"state_dict": GumbelVQ(config).state_dict()}, folder / WEIGHTS_NAME)


def _write_plugins(folder: Path, shape: RandomShape) -> None:
    """Plugins and fusion weights that fit the base and ViT already written."""
    from transformers import AutoConfig

    base = base_shapes(AutoConfig.from_pretrained(folder / "base"), shape.vision_width)
    for task, rank in shape.ranks:
        write_task_folder(folder / task, random_plugin(base, rank, shape.num_experts, shape.dtype), base.linears)
    vocabulary = ImageVocabulary(start_id=len(load_tokenizer(folder / "base")), num_codes=shape.num_codes)
    rows = vocabulary.num_rows, base.hidden
    names = ("embed_tokens.weight", "lm_head.weight")
    write_fusion(folder, {name: (torch.randn(rows) * 0.05).to(shape.dtype) for name in names})


def random_plugin(base: BaseShapes, rank: int, num_experts: int, dtype: torch.dtype) -> Plugin:
    """A plugin whose every matrix matters (a freshly started one has B = 0)."""

    def matrix(*size: int) -> Tensor:
        return (torch.randn(size) / size[-1] ** 0.5 / 4).to(dtype)

    adapter = {}
    for name, (width_out, width_in) in base.linears.items():
        adapter[f"{name}.lora_route.weight"] = matrix(num_experts, width_in)
        adapter[f"{name}.lora_A.weight"] = matrix(rank, width_in)
        adapter[f"{name}.lora_B.weight"] = matrix(width_out, rank)
    projector: dict[str, Tensor] = {}
    for name, width_in in (("linear_1", base.vision), ("linear_2", base.hidden)):
        layer = nn.Linear(width_in, base.hidden, dtype=dtype)
        projector |= {f"{name}.weight": layer.weight.detach(), f"{name}.bias": layer.bias.detach()}
    return Plugin(
        path=Path("random"),
        adapter=adapter,
        projector=projector,
        rank=rank,
        num_experts=num_experts,
        alpha=ALPHA_PER_RANK * rank,
    )
