"""What few tokens are read by on a CPU: compiled loops against PyTorch's operators in float64, on random shapes."""

import copy
import functools
import logging
import sys

import numpy as np
import pytest
import torch

from healthgpt import HealthGPT, Task
from healthgpt.bench.shapes import SHAPES, Shape, random_network
from healthgpt.engine import linear, numba_use
from healthgpt.engine.attention import Spots
from healthgpt.engine.cache import KeyValueCache
from healthgpt.engine.decoder import Decoder, decoders_of
from healthgpt.engine.linear import fuse
from healthgpt.hlora import HLoraConfig, attach_adapter
from healthgpt.loading import LoadOptions
from healthgpt.shortcuts import Shortcuts

loops = pytest.importorskip("healthgpt.engine.loops", exc_type=ImportError)
CPU = LoadOptions(device="cpu", dtype="FP32")
PHI3 = dict(SHAPES["tiny"].architecture)
QWEN2 = {"model_type": "qwen2", "hidden_size": 60, "intermediate_size": 100, "num_hidden_layers": 3}
ARCHITECTURES = {
    "phi3": PHI3,
    "phi4": {**PHI3, "partial_rotary_factor": 0.75, "num_attention_heads": 6, "hidden_size": 96, "head_dim": 16},
    "a window": {**PHI3, "sliding_window": 5},
    "qwen2": {**QWEN2, "num_attention_heads": 6, "num_key_value_heads": 2},
}


def network_of(architecture: str):
    values = {name: getattr(SHAPES["tiny"], name) for name in ("len_tokenizer", "num_codes", "ranks", "vision")}
    return random_network(Shape(**{**values, "architecture": ARCHITECTURES[architecture]}), CPU)[0]


def spots_of(starts: list[int], length: int, seen: torch.Tensor | None = None) -> Spots:
    positions = torch.tensor(starts).unsqueeze(1) + torch.arange(length)
    alike = starts[0] if len(set(starts)) == 1 else None
    return Spots(positions=positions, start=alike, live=max(starts) + length, seen=seen)


@torch.inference_mode()
def read_twice(decoder: Decoder, x: torch.Tensor, more: torch.Tensor, starts: list[int], seen: torch.Tensor | None):
    """Embeddings up to where each sequence stands, then more of them; what the head takes of these, and logits."""
    cache = KeyValueCache(decoder.cache_shape, len(x), 64)
    decoder.read(x, cache, spots_of([0] * len(x), x.shape[1]))
    hidden = decoder.read(more, cache, spots_of(starts, more.shape[1], seen))
    return hidden, decoder.logits(hidden, slice(3, 50)), cache.keys[:, :, :, : min(starts) + more.shape[1]]


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loops_are_the_operators_in_double_precision(architecture, task):
    torch.manual_seed(0)
    network = network_of(architecture)
    for name, parameter in network.named_parameters():
        if "norm" in name or name.endswith("bias"):  # of a new network they are 1 and 0
            torch.nn.init.normal_(parameter, mean=1 if "norm" in name else 0, std=0.3)
    decoder = decoders_of(network)[task]
    exact = decoders_of(copy.deepcopy(network).double())[task]
    assert decoder._small is not None
    assert exact._small is None
    for starts, length in (([9], 1), ([9, 4, 7], 1), ([6], 3), ([9, 2], 4), ([0] * 8, 4), ([12] * 9, 1)):
        x = torch.randn(len(starts), max(max(starts), 1), decoder.embeddings.shape[1])
        more = torch.randn(len(starts), length, decoder.embeddings.shape[1])
        behind = torch.arange(max(starts) + length) <= spots_of(starts, length).positions.unsqueeze(-1)
        itself = torch.arange(max(starts) + length) == spots_of(starts, length).positions.unsqueeze(-1)
        for seen in (None, itself | (behind & (torch.rand(behind.shape) < 0.7))):
            found = read_twice(decoder, x, more, starts, seen)
            for mine, expected in zip(found, read_twice(exact, x.double(), more.double(), starts, seen), strict=True):
                torch.testing.assert_close(mine, expected.float(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("experts", [1, 3, 32])
@pytest.mark.parametrize("adapter", ["hlora", "moelora", "lora"])
@pytest.mark.parametrize("alpha", [64, 10])  # a scale that is a power of two, and one that is not
def test_products_with_adapters_in_double_precision(adapter, experts, alpha):
    """Widths and ranks that no vector divides; a layer that only one task adapts; none and one token, too."""
    torch.manual_seed(0)
    tasks = (Task.COMPREHENSION, Task.GENERATION)
    body = torch.nn.ModuleDict(
        {name: torch.nn.Linear(23, width) for name, width in zip("abc", (7, 18, 5), strict=True)}
    )
    for task, names in zip(tasks, ("ac", "abc"), strict=True):
        number = 1 if adapter == "lora" else experts
        config = HLoraConfig(
            r=3 * number, lora_alpha=alpha, adapter=adapter, num_experts=number, target_modules=list(names)
        )
        attach_adapter(body, task, config)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    layers = list(body.values())
    with torch.inference_mode():
        fused = fuse(layers, tasks, into_one=True, by_rows=True)
        for tokens in (0, 1, 3, 4, 7, 32):
            x = torch.randn(tokens, 23)
            for task in tasks:
                layers[0].router.task = task
                expected = torch.cat([layer.double()(x.double()) for layer in layers], dim=-1)
                found = torch.from_numpy(loops._linear(x.numpy(), fused[task].packed()))
                torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def test_what_is_packed_is_no_second_copy():
    network = network_of("phi3")
    decoder, other = decoders_of(network).values()
    for layer, second in zip(decoder._small._layers, other._small._layers, strict=True):
        for mine, theirs in (
            (layer[1], second[1]),
            (layer[2], second[2]),
            (layer[4], second[4]),
            (layer[5], second[5]),
        ):
            assert np.shares_memory(mine[0], theirs[0])  # W, between the adapters of both tasks
    weights = {base.data_ptr() for base in (layer.queries.weights[0] for layer in decoder._layers)}
    assert {layer[1][0].__array_interface__["data"][0] for layer in decoder._small._layers} == weights


def test_numbers_that_are_none_stay_so():
    decoder = decoders_of(network_of("phi3"))[Task.COMPREHENSION]
    x = torch.randn(1, 1, decoder.embeddings.shape[1])
    x[0, 0, 5] = torch.nan
    with torch.inference_mode():
        cache = KeyValueCache(decoder.cache_shape, 1, 8)
        assert decoder.logits(decoder.read(x, cache, spots_of([0], 1))).isnan().all()


def test_other_layers_and_many_tokens_are_for_the_operators(monkeypatch):
    monkeypatch.setattr(loops, "read_layer", lambda *values: pytest.fail("a pass of many tokens"))
    network = network_of("phi3")
    decoder = decoders_of(network)[Task.COMPREHENSION]
    with torch.inference_mode():
        x = torch.randn(3, 11, decoder.embeddings.shape[1])
        decoder.read(x, KeyValueCache(decoder.cache_shape, 3, 11), spots_of([0] * 3, 11))
    for shortcuts in (Shortcuts(fp8_cache=True), Shortcuts(int8_weights=True)):
        assert decoders_of(network, shortcuts)[Task.COMPREHENSION]._small is None
    monkeypatch.setattr(linear, "_MOST_PACKED", 0)
    assert decoders_of(network)[Task.COMPREHENSION]._small is None
    monkeypatch.undo()
    monkeypatch.setattr(numba_use, "_LARGEST_LAYER", 1000)
    assert decoders_of(network)[Task.COMPREHENSION]._small is None
    monkeypatch.undo()
    assert decoders_of(network.to(torch.bfloat16))[Task.COMPREHENSION]._small is None


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (None, "Numba is not installed, so decoding takes PyTorch's slower operators"),
        (numba_use, "decoding takes PyTorch's slower operators: Numba (cache: NUMBA_CACHE_DIR): "),
    ],
)
def test_a_machine_without_numba_is_told_of_once(random_folder, spec, told, monkeypatch, caplog):
    question = "What modality is used to take this image?"
    expected = HealthGPT.from_pretrained(random_folder, device="cpu").answer(question, max_new_tokens=8)
    monkeypatch.setattr(numba_use, "_loops", functools.cache(numba_use._loops.__wrapped__))
    monkeypatch.setattr(numba_use.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setitem(sys.modules, "healthgpt.engine.loops", None)  # its import fails
    with caplog.at_level(logging.INFO, logger="healthgpt.engine.numba_use"):
        models = [HealthGPT.from_pretrained(random_folder, device="cpu") for _ in range(2)]
    assert [record.message.startswith(told) for record in caplog.records] == [True]
    assert all(model._engine._decoders[Task.COMPREHENSION]._small is None for model in models)
    assert models[0].answer(question, max_new_tokens=8) == expected
