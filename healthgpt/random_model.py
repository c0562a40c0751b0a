"""Model folders with random weights: true in every file, key and shape, and knowing nothing.

They stand in where no trained model is configured, and carry tests and benchmarks: the base has Phi-3's architecture
and tokenizer layout, at any size.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from healthgpt.checking import base_shapes
from healthgpt.checkpoints import BaseShapes, Plugin, write_fusion, write_task_folder
from healthgpt.config import ALPHA_PER_RANK, CONFIG_NAME, FolderConfig, ModelSources, folder_sources
from healthgpt.tasks import Task
from healthgpt.tokenization import load_tokenizer
from healthgpt.vocabulary import ImageVocabulary

logger = logging.getLogger(__name__)

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
# Phi-3's added tokens after its vocabulary, and whether each swallows the white space to its right.
_ADDED = (
    ("<|endoftext|>", False),
    ("<|assistant|>", True),
    *((f"<|placeholder{i}|>", True) for i in range(1, 5)),
    ("<|system|>", True),
    ("<|end|>", True),
    *((f"<|placeholder{i}|>", True) for i in range(5, 7)),
    ("<|user|>", True),
)
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


@dataclass(frozen=True, kw_only=True)
class RandomShape:
    """Sizes of a random model; the defaults make one of about two million parameters.

    Attributes:
        width, layers, heads, kv_heads, mlp: of the Phi-3-architecture LLM.
        vocabulary: rows of its embeddings (at least the tokenizer's).
        vision_width, vision_layers, image_side: of the ViT, with patches of 14 pixels.
        ranks: merged H-LoRA rank per task.
        num_experts: E.
        num_codes: N, codes of the VQGAN, whose images have a side of `drawing_side` pixels (f = 8).
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 4
    mlp: int = 128
    vocabulary: int = 512
    vision_width: int = 48
    vision_layers: int = 4
    image_side: int = 56
    ranks: tuple[tuple[Task, int], ...] = ((Task.COMPREHENSION, 8), (Task.GENERATION, 16))
    num_experts: int = 4
    num_codes: int = 64
    drawing_side: int = 64
    dtype: torch.dtype = torch.float32


@contextlib.contextmanager
def random_sources() -> Iterator[ModelSources]:
    """The sources of a small random model, in a folder that is gone when the block ends."""
    logger.info("no trained model is configured: a tiny random model stands in, and what it says means nothing")
    with tempfile.TemporaryDirectory(prefix="healthgpt-") as folder:
        yield folder_sources(write_random_model(Path(folder)))


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
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    first_added = _write_tokenizer(folder)
    end_of_text, assistant, end = first_added, first_added + 1, first_added + 7
    config = Phi3Config(
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=max(shape.vocabulary, first_added + len(_ADDED)),
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
    _save(model, folder)


def _save(model: PreTrainedModel, folder: Path) -> None:
    """Configuration and weights as `save_pretrained` writes them (which would first load whatever trains models)."""
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path) -> int:
    """Trains a small SentencePiece model and lays it out as Phi-3's; returns the first added token's id."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    folder.mkdir(parents=True, exist_ok=True)
    model = BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    first_added = SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    added = [("<unk>", False), ("<s>", False)]
    entries = dict(enumerate(added)) | {first_added + i: entry for i, entry in enumerate(_ADDED)}
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": True,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "added_tokens_decoder": {
            str(i): {"content": content, "lstrip": False, "rstrip": rstrip, "special": True}
            for i, (content, rstrip) in entries.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return first_added


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
    _save(CLIPVisionModel(config), folder)
    side = {"height": shape.image_side, "width": shape.image_side}
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": shape.image_side},
        "crop_size": side,
        "resample": 3,
        "image_mean": _MEAN,
        "image_std": _STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _write_vqgan(folder: Path, shape: RandomShape) -> None:
    from taming_transformers.vqgan import GumbelVQ, read_vqgan_config

    folder.mkdir(parents=True, exist_ok=True)
    ddconfig = {
        "double_z": False,
        "z_channels": 32,
        "resolution": shape.drawing_side,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [shape.drawing_side // 8],
        "dropout": 0.0,
    }
    params = {"embed_dim": 32, "n_embed": shape.num_codes, "ddconfig": ddconfig}
    (folder / "model.yaml").write_text(
        yaml.safe_dump({"model": {"target": "taming.models.vqgan.GumbelVQ", "params": params}})
    )
    torch.save({"state_dict": GumbelVQ(read_vqgan_config(folder)).state_dict()}, folder / "last.ckpt")


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
