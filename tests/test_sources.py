"""Names of models: the embedded default, released ones from the hub's cache, folders on the hub."""

import shutil

import pytest
from conftest import Golden

from healthgpt import HealthGPT, Task
from healthgpt.config import RELEASED
from healthgpt.sources import named_sources


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache on disk, in the hub client's own layout, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def add(repository, folder, *names):
        root = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("abc123")
        snapshot = root / "snapshots" / "abc123"
        if not names:
            shutil.copytree(folder, snapshot)
        for source, name in names:
            snapshot.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / source, snapshot / name)

    return add


@pytest.mark.parametrize(("name", "family"), [("m3", "m3"), ("l14", "l14"), ("xl32", "xl32")])
def test_a_released_model_by_its_name(hub, tmp_path, monkeypatch, name, family):
    golden, released = Golden(family), RELEASED[name]
    hub(released.base, golden.folder / "base")
    hub(released.vit, golden.folder / "vit")
    hub(released.repository, golden.folder, ("com_hlora_weights.bin", released.plugins[Task.COMPREHENSION].name))
    monkeypatch.chdir(tmp_path)
    model = HealthGPT.from_pretrained(name)
    assert model.tasks == (Task.COMPREHENSION,)  # without a VQGAN's checkpoint it only answers
    case = golden.cases[0]
    answer = model.answer(case["question"], golden.image(case), max_new_tokens=24, return_details=True)
    assert answer.prompt_ids == case["input_ids"]
    assert answer.token_ids == case["generated_ids"]


def test_m3_draws_where_the_vqgan_is(hub, tmp_path, monkeypatch, m3):
    released = RELEASED["m3"]
    files = [("com_hlora_weights.bin",) * 2, ("gen_hlora_weights.bin",) * 2, ("fusion_layer_weights.bin",) * 2]
    hub(released.repository, m3.folder, *files)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(m3.folder.parent / "vqgan", tmp_path / "taming_transformers" / "ckpt")
    sources = named_sources("m3")
    assert set(sources.plugins) == set(Task)
    assert sources.fusion is not None
    assert sources.vqgan is not None


def test_a_model_folder_on_the_hub(hub, random_folder):
    hub("someone/my-healthgpt", random_folder)
    model = HealthGPT.from_pretrained("someone/my-healthgpt")
    assert model.tasks == (Task.COMPREHENSION, Task.GENERATION)


def test_what_is_not_in_the_cache_is_named(hub):
    for name, missing in (("m3", "lintw/HealthGPT-M3/com_hlora_weights.bin"), ("someone/none", "someone/none")):
        with pytest.raises(FileNotFoundError, match=f"{missing}: .*not to be had from the hub"):
            HealthGPT.from_pretrained(name)
