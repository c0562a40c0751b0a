"""Shared parts of the tests: golden data of the original, and a random model of this project's own layout.

`golden/` holds tiny models with random weights in the released layout, and what the original implementation computed
with them (its README says how); tests compare against it and never change it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from browser import browser, new_page  # noqa: F401 (fixtures of every test)
from safetensors.torch import load_file
from torch import Tensor

from healthgpt import HealthGPT, Request, Task
from healthgpt.config import ModelSources, PluginSource
from healthgpt.loading import LoadOptions
from healthgpt.random_model import write_random_model

GOLDEN = Path(__file__).parent / "golden"
DATA = Path(__file__).parent / "data"
FAMILIES = ("m3", "l14", "xl32")
TASKS = {"com": Task.COMPREHENSION, "gen": Task.GENERATION}


@dataclass(frozen=True)
class Golden:
    """One family of golden data."""

    family: str

    @property
    def folder(self) -> Path:
        return GOLDEN / self.family

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "cases.json").read_text())["meta"]

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "cases.json").read_text())["cases"]

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        return load_file(self.folder / "expected.safetensors")

    @property
    def draws(self) -> bool:
        return "gen" in self.meta["ranks"]

    def image(self, case: dict[str, Any]) -> str | None:
        return str(self.folder / case["image"]) if case["image"] else None

    def request(self, case: dict[str, Any]) -> Request:
        image = self.image(case)
        return Request(task=TASKS[case["task"]], question=case["question"], images=[image] if image else [])

    def sources(self, **changes: Any) -> ModelSources:
        plugins = {Task.COMPREHENSION: PluginSource(path=self.folder / "com_hlora_weights.bin")}
        values: dict[str, Any] = {
            "base": str(self.folder / "base"),
            "vit": str(self.folder / "vit"),
            "plugins": plugins,
        }
        if self.draws:
            plugins[Task.GENERATION] = PluginSource(path=self.folder / "gen_hlora_weights.bin")
            values |= {"fusion": self.folder / "fusion_layer_weights.bin", "vqgan": GOLDEN / "vqgan"}
        return ModelSources(**{**values, **changes})

    def flags(self, task: Task) -> list[str]:
        """The original's command-line flags for one task."""
        name = "com" if task is Task.COMPREHENSION else "gen"
        flags = {
            "--model_name_or_path": self.folder / "base",
            "--vit_path": self.folder / "vit",
            "--hlora_path": self.folder / f"{name}_hlora_weights.bin",
            "--instruct_template": self.meta["template"],
            "--vq_idx_nums": self.meta["vq_idx_nums"],
            "--hlora_r": self.meta["ranks"][name][0],
            "--hlora_alpha": self.meta["ranks"][name][1],
            "--hlora_nums": self.meta["hlora_nums"],
            "--dtype": "FP32",
        }
        if self.draws:
            flags["--fusion_layer_path"] = self.folder / "fusion_layer_weights.bin"
        if task is Task.GENERATION:
            flags["--vqgan_path"] = GOLDEN / "vqgan"
        return [str(part) for pair in flags.items() for part in pair]


@pytest.fixture(scope="session", params=FAMILIES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.fixture(scope="session")
def golden_model(golden: Golden) -> HealthGPT:
    return HealthGPT.from_sources(golden.sources(), LoadOptions(device="cpu"))


@pytest.fixture(scope="session")
def m3() -> Golden:
    return Golden("m3")


@pytest.fixture(scope="session")
def m3_model(m3: Golden) -> HealthGPT:
    return HealthGPT.from_sources(m3.sources(), LoadOptions(device="cpu"))


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of ours; tests that change it copy it first."""
    return write_random_model(tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="session")
def random_model(random_folder: Path) -> HealthGPT:
    return HealthGPT.from_pretrained(random_folder, device="cpu")
