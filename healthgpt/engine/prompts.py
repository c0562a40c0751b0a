"""Prompts on their way into the cache: those that begin alike, up to their image, have that beginning read once.

Benchmarks ask many questions about one image, and an image is most of a prompt.

Legend: B prompts, L tokens of one, P of them its beginning, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from healthgpt.engine.attention import Spots
from healthgpt.engine.cache import KeyValueCache
from healthgpt.engine.decoder import Decoder
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import IMAGE_PLACEHOLDER, HealthGPTProcessor, Prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedPrompt:
    """A prompt as the LLM takes it.

    Attributes:
        shared: (P, D) its beginning, one object in all prompts that begin so; None where it is not told apart.
        own: (L - P, D) the rest.
    """

    shared: Tensor | None
    own: Tensor

    def __len__(self) -> int:
        return len(self.own) + (0 if self.shared is None else len(self.shared))

    @property
    def whole(self) -> Tensor:
        """(L, D)"""
        return self.own if self.shared is None else torch.cat([self.shared, self.own])


def embed_prompts(
    network: HealthGPTForConditionalGeneration, processor: HealthGPTProcessor, prompts: Sequence[Prompt]
) -> list[EmbeddedPrompt]:
    """Embeds prompts of the task that the network is routed to; each different beginning once, where some are alike."""
    keys = _beginnings(prompts) if len(prompts) > 1 else []
    if None in keys or len(set(keys)) == len(keys):
        return [EmbeddedPrompt(shared=None, own=rows) for rows in _rows(network, processor, prompts)]
    cuts = [_cut(prompt) for prompt in prompts]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    heads = [replace(prompts[number], ids=prompts[number].ids[: cuts[number]]) for number in first.values()]
    shared = dict(zip(first, _rows(network, processor, heads), strict=True))
    tails = [replace(prompt, ids=prompt.ids[cut:], pixels=None) for prompt, cut in zip(prompts, cuts, strict=True)]
    return [
        EmbeddedPrompt(shared=shared[key], own=rows)
        for key, rows in zip(keys, _rows(network, processor, tails), strict=True)
    ]


def begin_alike(prompts: Sequence[Prompt]) -> bool:
    """Whether some prompts have a beginning in common that is read once where they are read together."""
    keys = [key for key in _beginnings(prompts) if key is not None]
    return len(set(keys)) < len(keys)


def _cut(prompt: Prompt) -> int:
    """How many ids a prompt has up to its last image; 0 without one."""
    return len(prompt.ids) - ([*reversed(prompt.ids), IMAGE_PLACEHOLDER].index(IMAGE_PLACEHOLDER))


def _beginnings(prompts: Sequence[Prompt]) -> list[Hashable]:
    """What each prompt's beginning is known by; None for one that has none, or nothing behind it."""
    digests: dict[int, bytes] = {}
    keys: list[Hashable] = []
    for prompt in prompts:
        cut, pixels = _cut(prompt), prompt.pixels
        if pixels is None or cut == len(prompt.ids):
            keys.append(None)
            continue
        if id(pixels) not in digests:
            digests[id(pixels)] = hashlib.sha256(pixels.numpy().tobytes()).digest()
        keys.append((tuple(prompt.ids[:cut]), digests[id(pixels)]))
    return keys


def _rows(
    network: HealthGPTForConditionalGeneration, processor: HealthGPTProcessor, prompts: Sequence[Prompt]
) -> list[Tensor]:
    """(L, D) embeddings of each prompt."""
    ids, mask, pixels = processor.batch(prompts)
    embeds = network.embed_prompt(ids.to(network.get_input_embeddings().weight.device), pixels)
    lengths = mask.sum(dim=1).tolist()
    return [row[row.shape[0] - length :] for row, length in zip(embeds, lengths, strict=True)]


def read_prompts(
    decoder: Decoder, prompts: Sequence[EmbeddedPrompt], room: int = 0, cache: KeyValueCache | None = None
) -> tuple[KeyValueCache, Tensor]:
    """Reads prompts into a cache, by default a new one with room for so many more tokens.

    Returns:
        the cache, and what the head takes of each prompt's last token, (B, D).

    Raises:
        MemoryError, torch.OutOfMemoryError: the cache does not fit.
    """
    lengths = [len(prompt) for prompt in prompts]
    if cache is None:
        cache = KeyValueCache(decoder.cache_shape, len(prompts), max(lengths) + room)
    beginnings = {-1 if prompt.shared is None else len(prompt.shared) for prompt in prompts}
    start = max(beginnings) if len(beginnings) == 1 else 0
    if start > 0:
        _read_beginnings(decoder, [prompt.shared for prompt in prompts], cache)
        x = pad_sequence([prompt.own for prompt in prompts], batch_first=True)
    else:
        start = 0
        x = pad_sequence([prompt.whole for prompt in prompts], batch_first=True)
    ends = torch.tensor(lengths, device=x.device) - start - 1 + x.shape[1] * torch.arange(len(x), device=x.device)
    return cache, decoder.read(x, cache, _spots(x, start), ends)


def _read_beginnings(decoder: Decoder, beginnings: Sequence[Tensor | None], cache: KeyValueCache) -> None:
    """Reads each different beginning once, and copies its keys and values to all prompts that have it."""
    different = {id(rows): rows for rows in beginnings if rows is not None}
    numbers = {key: number for number, key in enumerate(different)}
    x = torch.stack(list(different.values()))
    read = KeyValueCache(decoder.cache_shape, len(x), x.shape[1])
    decoder.read(x, read, _spots(x, 0), wanted=torch.empty(0, dtype=torch.long, device=x.device))
    rows = torch.tensor([numbers[id(one)] for one in beginnings], device=x.device)
    cache.take(read, rows, x.shape[1])


def _spots(x: Tensor, start: int) -> Spots:
    batch, length, _ = x.shape
    positions = torch.arange(start, start + length, device=x.device).expand(batch, -1)
    return Spots(positions=positions, start=start, live=start + length)
