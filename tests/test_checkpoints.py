"""Weights: both layouts, byte for byte, and every key accounted for."""

import shutil
from pathlib import Path

import pytest
import torch

from healthgpt import HealthGPT, Task
from healthgpt.checking import check_sources
from healthgpt.checkpoints import (
    ADAPTER_NAME,
    infer_num_image_tokens,
    read_fusion,
    read_plugin,
    write_released_plugin,
)
from healthgpt.config import PluginSource, folder_sources
from healthgpt.conversion import convert_released, export_released


def same_bytes(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    def raw(tensor: torch.Tensor) -> bytes:
        return tensor.contiguous().view(torch.uint8).numpy().tobytes()

    return one.keys() == other.keys() and all(
        one[k].dtype == other[k].dtype and one[k].shape == other[k].shape and raw(one[k]) == raw(other[k]) for k in one
    )


def load(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_released_files_survive_the_round_trip_byte_by_byte(golden, tmp_path, dtype):
    released = tmp_path / "released"
    released.mkdir()
    for path in golden.folder.glob("*.bin"):
        torch.save({key: tensor.to(dtype) for key, tensor in load(path).items()}, released / path.name)
    changes = {
        "plugins": {task: PluginSource(path=released / p.path.name) for task, p in golden.sources().plugins.items()}
    }
    if golden.draws:
        changes["fusion"] = released / "fusion_layer_weights.bin"
    folder = convert_released(golden.sources(**changes), tmp_path / "model")
    back = export_released(folder, tmp_path / "back")
    assert {path.name for path in back} == {path.name for path in released.iterdir()}
    for path in back:
        assert same_bytes(load(path), load(released / path.name))
        if "fusion" not in path.name:
            assert {value.dtype for value in load(path).values()} == {dtype}


def test_exported_keys_stand_in_the_originals_order(m3, tmp_path):
    source = m3.sources().plugins[Task.COMPREHENSION]
    write_released_plugin(tmp_path / "out.bin", read_plugin(source))
    assert list(load(tmp_path / "out.bin")) == list(load(source.path))


def test_a_converted_folder_answers_and_draws_the_same(golden, tmp_path):
    folder = convert_released(golden.sources(), tmp_path / "model")
    model = HealthGPT.from_pretrained(folder)
    results = model.run_batch([golden.request(case) for case in golden.cases], max_new_tokens=24)
    for case, result in zip(golden.cases, results, strict=True):
        expected = case["generated_ids"] if case["task"] == "com" else case["constrained_indices"]
        assert (result.token_ids if case["task"] == "com" else result.indices) == expected


def test_a_copied_folder_stands_alone(m3, tmp_path):
    shutil.copytree(m3.folder, tmp_path / "files")
    shutil.copytree(m3.folder.parent / "vqgan", tmp_path / "vqgan")
    moved = type(m3)("m3").sources(
        base=str(tmp_path / "files" / "base"), vit=str(tmp_path / "files" / "vit"), vqgan=tmp_path / "vqgan"
    )
    folder = convert_released(moved, tmp_path / "model", copy=True)
    shutil.rmtree(tmp_path / "files")
    shutil.rmtree(tmp_path / "vqgan")
    folder = folder.rename(tmp_path / "elsewhere")
    case = m3.cases[5]
    drawn = HealthGPT.from_pretrained(folder).draw(case["question"], m3.image(case), return_details=True)
    assert drawn.indices == case["constrained_indices"]


def test_conversion_writes_nothing_when_it_fails(m3, tmp_path):
    bad = m3.sources(fusion=m3.folder / "com_hlora_weights.bin")
    with pytest.raises(ValueError, match="not fusion weights"):
        convert_released(bad, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    for act in (lambda out: convert_released(m3.sources(), out), lambda out: export_released(m3.folder, out)):
        with pytest.raises((ValueError, FileNotFoundError)):
            act(tmp_path / "there")
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["file"]


def edited(path: Path, target: Path, edit) -> Path:
    tensors = load(path)
    edit(tensors)
    torch.save(tensors, target)
    return target


A = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"


def pop(key):
    return lambda tensors: tensors.pop(key)


def put(key, value):
    return lambda tensors: tensors.update({key: value})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (pop(A), r"layers\.1\.mlp\.down_proj\.lora_A\.weight is missing, expected shape \(8, 128\)"),
        (put(A, torch.zeros(8, 99)), r"lora_A\.weight has shape \(8, 99\), this base model expects \(8, 128\)"),
        (put(A, torch.zeros(12, 128)), r"lora_A\.weight has rank 12, other layers have 8"),
        (put("extra.weight", torch.zeros(1)), r"extra\.weight of shape \(1,\) is not expected"),
        (pop("base_model.model.model.mm_projector.0.bias"), r"linear_1\.bias is missing, expected shape \(64,\)"),
        (put("base_model.model.model.mm_projector.2.bias", torch.zeros(3)), r"linear_2\.bias has shape \(3,\)"),
        (put("note", "hello"), "expected a dictionary of tensors"),
        (lambda tensors: tensors.clear(), "not a plugin, no H-LoRA in it"),
    ],
)
def test_every_key_is_accounted_for(m3, tmp_path, edit, message):
    source = m3.sources().plugins[Task.COMPREHENSION]
    path = edited(source.path, tmp_path / "com.bin", edit)
    with pytest.raises(ValueError, match=message) as caught:
        check_sources(m3.sources(plugins={Task.COMPREHENSION: PluginSource(path=path)}))
    assert "com.bin" in str(caught.value)


@pytest.mark.parametrize("other", ["l14", "xl32"])
def test_another_models_plugin_is_refused(m3, other):
    path = m3.folder.parent / other / "com_hlora_weights.bin"
    with pytest.raises(ValueError, match=rf"{other}/com_hlora_weights\.bin: .*(has shape|is missing|not expected)"):
        check_sources(m3.sources(plugins={Task.COMPREHENSION: PluginSource(path=path)}))


def test_what_is_asked_for_is_checked_against_the_file(m3):
    path = m3.sources().plugins[Task.COMPREHENSION].path
    assert read_plugin(PluginSource(path=path)).alpha == 16
    assert read_plugin(PluginSource(path=path, alpha=5)).alpha == 5
    with pytest.raises(ValueError, match="rank 8 in the file, but 64 was asked for"):
        read_plugin(PluginSource(path=path, rank=64))
    with pytest.raises(ValueError, match="number of experts 4 in the file, but 8 was asked for"):
        read_plugin(PluginSource(path=path, num_experts=8))


def test_alpha_is_kept_in_a_folder(m3, tmp_path):
    path = m3.sources().plugins[Task.COMPREHENSION].path
    folder = convert_released(
        m3.sources(plugins={Task.COMPREHENSION: PluginSource(path=path, alpha=24)}), tmp_path / "model"
    )
    assert read_plugin(folder_sources(folder).plugins[Task.COMPREHENSION]).alpha == 24


def test_fusion_of_another_vocabulary_is_refused_by_both_tasks(m3):
    other = m3.folder.parent / "l14" / "fusion_layer_weights.bin"
    for task in Task:
        sources = m3.sources(fusion=other, plugins={task: m3.sources().plugins[task]}, num_image_tokens=64)
        with pytest.raises(ValueError, match=r"64 image tokens asked for, but the fusion weights' 572 rows hold 78"):
            check_sources(sources)


def test_fusion_of_another_width_is_refused(m3, tmp_path):
    path = edited(
        m3.folder / "fusion_layer_weights.bin",
        tmp_path / "fusion.bin",
        lambda tensors: tensors.update({key: value[:, :10].contiguous() for key, value in tensors.items()}),
    )
    with pytest.raises(ValueError, match=r"fusion\.bin: fusion weights \(558, 10\)"):
        check_sources(m3.sources(fusion=path))


def test_embeddings_and_head_must_be_alike(m3, tmp_path):
    path = edited(
        m3.folder / "fusion_layer_weights.bin",
        tmp_path / "fusion.bin",
        lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.zeros(3, 64)}),
    )
    with pytest.raises(ValueError, match="must be alike"):
        read_fusion(path)


def test_generation_without_fusion_is_refused(m3):
    with pytest.raises(ValueError, match=r"generation needs the fusion weights \(--fusion_layer_path"):
        check_sources(m3.sources(fusion=None))


def test_a_vqgan_of_another_codebook_is_refused(random_folder, tmp_path, m3):
    from healthgpt.random_model import RandomShape, write_random_model

    other = write_random_model(tmp_path / "other", RandomShape(num_codes=32))
    with pytest.raises(ValueError, match="a VQGAN of 32 codes, but the vocabulary has 64"):
        check_sources(m3.sources(vqgan=other / "vqgan"))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"num_rows": 40206, "len_tokenizer": 32011}, 8192),
        ({"num_rows": 558, "len_tokenizer": 491, "codebook": 99}, 64),
        ({"asked": 64, "codebook": 99}, 64),
        ({"codebook": 99}, 99),
        ({}, 8192),
        ({"template": "qwen_2"}, 0),
        ({"template": "qwen_2", "asked": 8192}, 0),
        ({"template": "qwen_2", "asked": 64, "can_draw": True}, 64),
    ],
)
def test_the_number_of_image_tokens(known, expected):
    defaults = {"asked": None, "num_rows": None, "len_tokenizer": 491, "codebook": None}
    values = {**defaults, "template": "phi3_instruct", "can_draw": False, **known}
    assert infer_num_image_tokens(**values) == expected


def test_damaged_folders_are_named(random_folder, tmp_path):
    for name, content, message in (
        (f"comprehension/{ADAPTER_NAME}", None, "no such file"),
        (f"comprehension/{ADAPTER_NAME}", b"<html>", "a web page of 6 bytes"),
        ("generation/projector.safetensors", b"\x00" * 100, "damaged or not safetensors"),
        ("comprehension/adapter_config.json", b'{"peft_type": "LORA"}', "peft_type is 'LORA', expected 'HLORA'"),
        ("comprehension/adapter_config.json", b'{"peft_type": "HLORA", "r": 99}', "r 99, but 8 in"),
        ("fusion.safetensors", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    ):
        folder = shutil.copytree(random_folder, tmp_path / "model")
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            check_sources(folder_sources(folder))
        assert name.split("/")[-1] in str(caught.value)
        shutil.rmtree(folder)
