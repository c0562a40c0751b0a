"""Decoding as the original does it: its layer, one operation after the other, and a loop of one forward per token.

It runs on the measured network's own weights, which it does not copy, and on transformers' modules of the LLM.

Legend: B prompts, L tokens, D width, R rank, E experts, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from healthgpt.bench.subject import Subject
from healthgpt.hlora import HLoraLinear
from healthgpt.processor import Prompt
from healthgpt.tasks import Task
from healthgpt.vocabulary import OnlyImageCodes


class OriginalLinear(nn.Module):
    """An H-LoRA layer by the original's formula: gates repeated to the full rank, every operation by itself."""

    def __init__(self, layer: Any, task: Task):
        super().__init__()
        self.weight: Tensor = layer.base_layer.weight
        self.bias: Tensor | None = layer.base_layer.bias
        self.route: Tensor = layer.lora_route[task].weight
        self.a: Tensor = layer.lora_A[task].weight
        self.b: Tensor = layer.lora_B[task].weight
        self.scaling = float(layer.scaling[task])
        self.times = self.a.shape[0] // self.route.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D_in) -> (B, L, D_out)"""
        result = F.linear(x, self.weight, self.bias)
        gates = torch.softmax(F.linear(x, self.route), dim=-1)
        low = F.linear(x, self.a) * self.scaling
        result += F.linear(gates.repeat_interleave(self.times, dim=-1) * low, self.b)
        return result


class Original:
    """The original's decoding of one task."""

    def __init__(self, subject: Subject, task: Task):
        self._subject, self._task = subject, task
        self._body = _body_of(subject, task)
        vocabulary = subject.processor.image_vocabulary if task is Task.GENERATION else None
        self._only_codes = OnlyImageCodes(vocabulary) if vocabulary else None

    def decode(
        self, prompts: Sequence[Prompt], num_tokens: int, watch: Callable[[Tensor], None] | None = None
    ) -> list[list[int]]:
        """The ids of so many tokens for each prompt.

        Args:
            watch: is told of every step's logits, (B, V), codes alone being possible in a drawing.
        """
        network, device = self._subject.network, self._subject.device
        with self._subject.engine.oracle.lock, torch.inference_mode():
            ids, padding, pixels = self._subject.processor.batch(prompts)
            network.route(self._task)
            x = network.embed_prompt(ids.to(device), pixels)
            mask = padding.to(device)
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
            cache, found = DynamicCache(), []
            embed, head = network.embeddings[self._task], network.heads[self._task]
            for _ in range(num_tokens):
                hidden = self._body(
                    inputs_embeds=x, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
                ).last_hidden_state
                logits = head(hidden[:, -1]).float()
                if self._only_codes:
                    logits = self._only_codes(ids, logits)
                if watch:
                    watch(logits)
                found.append(logits.argmax(dim=-1))
                x = embed(found[-1].unsqueeze(1))
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
                positions = positions[:, -1:] + 1
        return torch.stack(found, dim=1).tolist()


def _body_of(subject: Subject, task: Task) -> Any:
    """The LLM's modules once more around the same tensors, its H-LoRA layers being the original's.

    Layers of the baselines, LoRA and MoELoRA, which the original's formula is not of, stay the project's own.
    """
    body: Any = subject.network.model.language_model
    shared = [*body.parameters(), *body.buffers(), subject.network.router]
    twin = copy.deepcopy(body, {id(one): one for one in shared})
    for name, layer in list(twin.named_modules()):
        if isinstance(layer, HLoraLinear) and task in layer.lora_A:
            twin.set_submodule(name, OriginalLinear(layer, task))
    return twin
