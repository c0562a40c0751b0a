"""`config.json` of a model folder is read strictly."""

import json

import pytest

from healthgpt.config import RELEASED, VISION_LAYERS, FolderConfig, folder_sources, is_hub_id, read_folder_config
from healthgpt.tasks import Task, TaskType

GOOD = FolderConfig(template="phi3_instruct", base="base", vit="vit", num_image_tokens=64).to_dict()


def write(folder, **changes):
    values = {k: v for k, v in (GOOD | changes).items() if v != "absent"}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_a_config_comes_back(tmp_path):
    config = read_folder_config(write(tmp_path))
    assert config == FolderConfig(template="phi3_instruct", base="base", vit="vit", num_image_tokens=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templete": "x"}, "unknown key 'templete'; did you mean 'template'"),
        ({"base": "absent"}, "key 'base' is missing"),
        ({"num_image_tokens": "64"}, "num_image_tokens is '64', expected int"),
        ({"num_image_tokens": True}, "num_image_tokens is True, expected int"),
        ({"apply_fusion": 1}, "apply_fusion is 1, expected bool"),
        ({"model_type": "llama"}, "not the config of a HealthGPT model folder"),
        ({"format": 99}, "format 99 is newer"),
        ({"vision_layers": {"drawing": 1}}, r"vision_layers names \['drawing'\]"),
        ({"vqgan": 3}, "vqgan is 3, expected text or null"),
    ],
)
def test_bad_configs_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_folder_config(write(tmp_path, **changes))


def test_parts_inside_the_folder_and_elsewhere(tmp_path):
    write(tmp_path, base="base", vit="openai/clip-vit-large-patch14-336", vqgan="/elsewhere/vqgan")
    (tmp_path / "base").mkdir()
    (tmp_path / "generation").mkdir()
    sources = folder_sources(tmp_path)
    assert sources.base == str(tmp_path / "base")
    assert sources.vit == "openai/clip-vit-large-patch14-336"
    assert str(sources.vqgan) == "/elsewhere/vqgan"
    assert set(sources.plugins) == {Task.GENERATION}
    assert sources.vision_layers == dict(VISION_LAYERS)


def test_a_folder_without_plugins_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no plugin"):
        folder_sources(write(tmp_path))


def test_hub_ids():
    assert is_hub_id("microsoft/Phi-3-mini-4k-instruct")
    for path in ("./Phi-3", "a/b/c", "/abs/path", "name", "../x"):
        assert not is_hub_id(path)


def test_seven_and_five_task_types():
    by_task = {task: [kind for kind in TaskType if kind.task is task] for task in Task}
    assert len(by_task[Task.COMPREHENSION]) == 7
    assert len(by_task[Task.GENERATION]) == 5


def test_released_models_name_what_was_released():
    assert {name: len(model.plugins) for name, model in RELEASED.items()} == {"m3": 2, "l14": 1, "xl32": 1}
    assert RELEASED["m3"].fusion is not None
    assert RELEASED["xl32"].num_image_tokens == 0
