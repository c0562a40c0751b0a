"""Muon and AdamW as one optimizer, as the Trainer knows only one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """Muon for the blocks' matrices, AdamW for all else: embeddings, the output's rows, norms.

    With AdamW alone, the nano LLM did not learn within thousands of steps whether a word is among others; Muon, whose
    updates change all directions of a matrix alike, takes it there in some hundreds.

    Args:
        blocks: the module whose matrices are Muon's.
        learning_rate: of both; Muon's updates are scaled to the size of AdamW's.
        weight_decay, matrix_decay: AdamW's and Muon's. Muon moves every direction of a matrix by as much at every step,
            and lets it grow, unless it decays, until a plugin's updates hardly count beside it.
    """

    def __init__(
        self, model: nn.Module, blocks: nn.Module, *, learning_rate: float, weight_decay: float, matrix_decay: float
    ):
        matrices = [parameter for parameter in blocks.parameters() if parameter.ndim == 2]
        theirs = {id(parameter) for parameter in matrices}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in theirs]
        muon = Muon(matrices, lr=learning_rate, weight_decay=matrix_decay, adjust_lr_fn="match_rms_adamw")
        adamw = AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay)
        self._parts = (muon, adamw)
        super().__init__([*matrices, *rest], {})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Both states."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(dict(state))
        self._share_groups()

    def _share_groups(self) -> None:
        """The groups are the parts' own, so that a schedule that sets their learning rates sets the parts'."""
        self.param_groups: list[dict[str, Any]] = [group for part in self._parts for group in part.param_groups]
