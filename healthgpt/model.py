"""HealthGPT's network: one frozen LLM and one CLIP ViT, shared by both tasks, and what each task has of its own.

Legend: B batch, L tokens, D width of the LLM, P patches per image, N images, S side of the ViT's input.

The hard router is `route(task)`: it chooses, together and for the whole batch, the plugin on every linear layer, the
projector, the depth of the vision features, and the word embeddings with their head. Nothing is copied; a switch takes
microseconds. It is state: whoever calls `route` must own the model until the call that needs it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from healthgpt.hlora import HardRouter
from healthgpt.processor import IMAGE_PLACEHOLDER
from healthgpt.tasks import Task


class HealthGPTForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with a plugin, projector, vision layer and vocabulary per task.

    Attributes:
        tasks: what this model can be routed to.
        active_task: what it is routed to.
        router: the switch of the adapted layers; None before a plugin is attached.
        vision_layers: per task, the index into the ViT's `hidden_states` whose patches the model sees.
    """

    def __init__(self, config: LlavaConfig, vision_layers: Mapping[Task, int]):
        super().__init__(config)
        self.model.multi_modal_projector = nn.ModuleDict(
            {task: LlavaMultiModalProjector(config) for task in vision_layers}
        )
        self.vision_layers = dict(vision_layers)
        self.embeddings = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.active_task: Task | None = None
        self.router: HardRouter | None = None

    @classmethod
    def from_parts(
        cls, language_model: PreTrainedModel, vision_tower: CLIPVisionModel, vision_layers: Mapping[Task, int]
    ) -> Self:
        """Puts loaded parts together without copying them; the projectors are left on the meta device.

        Args:
            language_model: a causal LM with `.model` (the body) and `.lm_head`, as Phi-3's and Qwen2's.
            vision_layers: the tasks, and the depth of each one's vision features.
        """
        config = LlavaConfig(
            text_config=language_model.config,
            vision_config=vision_tower.config,
            image_token_index=IMAGE_PLACEHOLDER,
            projector_hidden_act="gelu",
            attn_implementation=language_model.config._attn_implementation,  # else it is reset to the default
        )
        with torch.device("meta"):
            model = cls(config, vision_layers)
        model.model.language_model = language_model.model
        model.model.vision_tower = vision_tower
        model.lm_head = language_model.lm_head
        model.generation_config = language_model.generation_config
        model.config.text_config = language_model.config
        for task in vision_layers:
            model.set_vocabulary(task, language_model.get_input_embeddings(), language_model.lm_head)
        return model

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(self.vision_layers)

    def set_vocabulary(self, task: Task, embed_tokens: nn.Module, lm_head: nn.Module) -> None:
        """Gives a task its word embeddings and head; tasks may share them."""
        self.embeddings[task], self.heads[task] = embed_tokens, lm_head

    def route(self, task: Task) -> None:
        """Chooses what runs from now on. `requires_grad` stays as it is.

        Raises:
            ValueError: the model has no plugin for the task.
        """
        if task not in self.vision_layers:
            raise ValueError(f"this model has no {task} plugin, only {', '.join(self.tasks)}")
        if self.router is not None:
            self.router.task = task
        self.model.language_model.embed_tokens, self.lm_head = self.embeddings[task], self.heads[task]
        self.active_task = task

    def image_features(self, pixels: Tensor) -> Tensor:
        """The active task's view of images: (N, 3, S, S) -> (N, P, D).

        The frozen ViT runs only up to the block whose output is used: the same bits as running it whole.
        """
        task = self._routed()
        tower = getattr(self.model.vision_tower, "vision_model", self.model.vision_tower)
        num_blocks = self.vision_layers[task] % (len(tower.encoder.layers) + 1)
        with torch.no_grad():
            weight = tower.pre_layrnorm.weight
            hidden = tower.pre_layrnorm(tower.embeddings(pixels.to(weight.device, weight.dtype)))
            for block in tower.encoder.layers[:num_blocks]:
                hidden = block(hidden, None)
        patches = hidden[:, 1:]  # without CLS
        projector = self.model.multi_modal_projector[task]
        return projector(patches.to(projector.linear_1.weight.device))

    def embed_prompt(self, input_ids: Tensor, pixels: Tensor | None) -> Tensor:
        """Word embeddings with each image's features at its placeholders: (B, L), (N, 3, S, S) -> (B, L, D).

        Raises:
            ValueError: the number of placeholders is not that of the images' patches.
        """
        is_image = input_ids == IMAGE_PLACEHOLDER
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_image, 0))
        features = None if pixels is None else self.image_features(pixels)
        num_features = 0 if features is None else features.shape[0] * features.shape[1]
        if int(is_image.sum()) != num_features:
            raise ValueError(f"{int(is_image.sum())} image placeholders for {num_features} patches of the images given")
        if features is None:
            return embeds
        return embeds.masked_scatter(is_image.unsqueeze(-1), features.to(embeds.device, embeds.dtype))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """LLaVA's forward; `input_ids` may hold image placeholders, one per patch."""
        if input_ids is not None and pixel_values is not None:
            inputs_embeds, input_ids = self.embed_prompt(input_ids, pixel_values), None
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)

    def _routed(self) -> Task:
        if self.active_task is None:
            raise RuntimeError("route(task) must be called before the model runs")
        return self.active_task
