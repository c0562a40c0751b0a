"""Devices, dtypes, quantisation, placement, and base models that are not whole."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from healthgpt import HealthGPT, Task
from healthgpt.checking import resolve_folder
from healthgpt.loading import LoadOptions, choose_device, load_model


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="device 'tpu!' is none of auto, cpu, cuda, cuda:N, mps"):
        choose_device("tpu!")
    with pytest.raises(ValueError, match=r"device 'cuda:99' is not there; this machine has cpu"):
        choose_device("cuda:99")
    with pytest.raises(ValueError, match="device 'meta' is not there"):
        choose_device("meta")


@pytest.mark.parametrize("name", ["auto", "FP32", "FP16", "BF16", "bf16"])
def test_dtypes(m3, name):
    loaded = load_model(m3.sources(), LoadOptions(dtype=name))
    expected = {"auto": torch.float32, "FP32": torch.float32, "FP16": torch.float16}.get(name, torch.bfloat16)
    floats = {p.dtype for p in loaded.network.parameters()}
    assert floats == {expected}
    assert {p.dtype for p in loaded.vqgan.parameters()} == {torch.float32}
    case = m3.cases[0]
    assert HealthGPT(loaded).answer(case["question"], m3.image(case), max_new_tokens=4)


def test_an_unknown_dtype_is_refused(m3):
    with pytest.raises(ValueError, match="dtype 'FP8' is none of auto, FP32, FP16, BF16"):
        load_model(m3.sources(), LoadOptions(dtype="FP8"))


def test_auto_follows_a_bfloat16_base(m3, tmp_path):
    base = shutil.copytree(m3.folder / "base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    loaded = load_model(m3.sources(base=str(base)))
    assert {p.dtype for p in loaded.network.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_bases_answer_and_draw(m3, bits):
    pytest.importorskip("bitsandbytes")
    options = LoadOptions(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    model = HealthGPT.from_sources(m3.sources(), options)
    kinds = {type(layer).__name__ for layer in model._network.model.language_model.modules()}
    assert ("Linear4bit" if bits == 4 else "Linear8bitLt") in kinds
    case = m3.cases[0]
    assert model.answer(case["question"], m3.image(case), max_new_tokens=8)
    assert len(model.draw("Reconstruct the image.", m3.image(case), return_details=True).indices) == 64


def test_quantisation_flags_exclude_each_other_and_need_the_package(m3, monkeypatch):
    with pytest.raises(ValueError, match="exclude each other"):
        load_model(m3.sources(), LoadOptions(load_in_4bit=True, load_in_8bit=True))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes: pip install 'healthgpt\[quantization\]'"):
        load_model(m3.sources(), LoadOptions(load_in_4bit=True))


def test_a_device_map_places_the_base(m3):
    """accelerate's hooks stay on the parts that are taken over (here every part is on the one CPU)."""
    names = [f"model.layers.{i}" for i in range(3)] + [
        "model.embed_tokens",
        "model.norm",
        "model.rotary_emb",
        "lm_head",
    ]
    for device_map in ("auto", dict.fromkeys(names, "cpu")):
        model = HealthGPT.from_sources(m3.sources(), LoadOptions(device_map=device_map))
        for case in (m3.cases[0], m3.cases[6]):
            result = model.run_batch([m3.request(case)], max_new_tokens=24)[0]
            assert result.prompt_ids == case["input_ids"]
            got = result.token_ids if case["task"] == "com" else result.indices
            assert got == (case["generated_ids"] if case["task"] == "com" else case["constrained_indices"])


def drop(key):
    def edit(folder):
        tensors = load_file(folder / "model.safetensors")
        del tensors[key]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("part", "edit", "message"),
    [
        ("base", drop("model.norm.weight"), r"1 weights are missing or mis-shaped, such as model\.norm\.weight"),
        (
            "vit",
            drop("vision_model.pre_layrnorm.weight"),
            r"1 weights are missing or mis-shaped, such as .*pre_layrnorm",
        ),
        ("base", truncate, "cannot be loaded"),
        ("base", lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        ("base", lambda folder: (folder / "config.json").unlink(), "no such file"),
        ("base", lambda folder: (folder / "config.json").write_text("{}"), "cannot be loaded"),
        ("vit", lambda folder: (folder / "preprocessor_config.json").unlink(), "no such file"),
        ("base", lambda folder: (folder / "config.json").write_text('{"model_type": "no_such"}'), "cannot be loaded"),
    ],
)
def test_parts_that_are_not_whole_are_refused(m3, tmp_path, part, edit, message):
    """Nothing is ever filled in with random weights."""
    folder = shutil.copytree(m3.folder / part, tmp_path / part)
    edit(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_model(m3.sources(**{part: str(folder)}))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_is_needed(m3):
    with pytest.raises(ValueError, match="no plugin is named"):
        load_model(m3.sources(plugins={}))


def test_missing_folders_and_unreachable_ids_are_named(monkeypatch):
    for reference in ("./no/such/folder", "no-such-folder"):
        with pytest.raises(FileNotFoundError, match="no such base model folder"):
            resolve_folder(reference, "base model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match="microsoft/none-such: no such ViT folder, and not to be had from the hub"
    ):
        resolve_folder("microsoft/none-such/", "ViT")


def test_loading_leaves_no_gradients_and_no_training_mode(m3_model):
    network = m3_model._network
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(p.is_meta for p in network.parameters())
    assert set(network.tasks) == set(Task)
