"""The network: hard routing, vision features, prompts merged with images."""

import copy
import json
import shutil

import pytest
import torch
from conftest import DATA, TASKS
from torch.nn.functional import gelu
from transformers import CLIPVisionModel

from healthgpt import HealthGPT, Task
from healthgpt.config import PluginSource
from healthgpt.hlora import TaskLinear
from healthgpt.processor import IMAGE_PLACEHOLDER


@pytest.fixture
def network(m3_model):
    yield m3_model._network
    m3_model._network.route(Task.COMPREHENSION)


def test_one_route_moves_everything(network):
    seen = {}
    for task in Task:
        network.route(task)
        plugins = {layer.active_adapter for layer in network.modules() if isinstance(layer, TaskLinear)}
        assert plugins == {task}
        assert network.active_task == task
        assert network.get_input_embeddings() is network.embeddings[task]
        assert network.get_output_embeddings() is network.heads[task]
        seen[task] = network.image_features(torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0)))
    assert not torch.allclose(seen[Task.COMPREHENSION], seen[Task.GENERATION])


def test_a_second_task_costs_its_own_parts_and_nothing_else(m3):
    """Base and ViT are in memory once: plugin, projector and the second vocabulary are all that drawing adds."""

    def memory(**changes):
        network = HealthGPT.from_sources(m3.sources(**changes))._network
        return sum({p.data_ptr(): p.nbytes for p in network.parameters()}.values())

    plugins = m3.sources().plugins
    both = memory()
    only = memory(plugins={Task.COMPREHENSION: plugins[Task.COMPREHENSION]}, num_image_tokens=64)
    files = (plugins[Task.GENERATION].path, m3.sources().fusion)
    own = sum(tensor.nbytes for path in files for tensor in torch.load(path, weights_only=True).values())
    assert both - only == own


def test_an_unknown_task_is_refused(golden_model):
    if Task.GENERATION not in golden_model.tasks:
        with pytest.raises(ValueError, match="no generation plugin, only comprehension"):
            golden_model._network.route(Task.GENERATION)


@pytest.mark.parametrize("task", list(Task))
def test_running_the_vit_only_as_far_as_needed_gives_the_same_bits(m3, network, task):
    tower = network.model.vision_tower
    ran = []
    hooks = [block.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(tower.encoder.layers)]
    pixels = torch.randn(2, 3, 56, 56)
    network.route(task)
    features = network.image_features(pixels)
    for hook in hooks:
        hook.remove()
    assert ran == ([0] if task is Task.GENERATION else [0, 1, 2])  # of four blocks
    with torch.no_grad():
        whole = tower(pixels, output_hidden_states=True).hidden_states[network.vision_layers[task]]
        projector = network.model.multi_modal_projector[task]
        expected = projector.linear_2(gelu(projector.linear_1(whole[:, 1:])))
    assert torch.equal(features, expected)


def test_golden_vision_features_and_embeddings(golden, golden_model):
    network = golden_model._network
    for case in golden.cases:
        if not case["image"]:
            continue
        request = golden.request(case)
        network.route(request.task)
        pixels = golden_model._processor.prompt(request.task, request.question, request.images).pixels
        expected = golden.expected[f"{case['case']}.image_embeds"]
        features = network.image_features(pixels)
        torch.testing.assert_close(features.view_as(expected), expected, atol=1e-4, rtol=0)


def in_double_precision(network):
    """A copy; parameters that were made in inference mode have to be taken out of it."""
    twin = copy.deepcopy(network)
    for parameter in twin.parameters():
        parameter.data = parameter.data.clone()
    return twin.double()


def test_golden_logits(golden, golden_model):
    """Every position of every prompt, to 1e-3 (the scale is about 4.5).

    In double precision, and in single as near as that is: some of these random networks magnify rounding, and the order
    of a CPU's sums, which differs from CPU to CPU, then moves single logits by up to 1.4e-3.
    """
    processor = golden_model._processor
    for network, tolerance in ((in_double_precision(golden_model._network), 1e-3), (golden_model._network, 3e-3)):
        for case in golden.cases:
            request = golden.request(case)
            network.route(TASKS[case["task"]])
            prompt = processor.prompt(request.task, request.question, request.images)
            ids, mask, pixels = processor.batch([prompt])
            with torch.no_grad():
                given = None if pixels is None else pixels.to(network.dtype)
                logits = network(input_ids=ids, pixel_values=given, attention_mask=mask).logits
            expected = golden.expected[f"{case['case']}.logits"].to(logits.dtype)
            torch.testing.assert_close(logits.view_as(expected), expected, atol=tolerance, rtol=0)


def test_placeholders_and_images_must_match(network):
    patches = 16
    ids = torch.full((1, patches + 2), IMAGE_PLACEHOLDER)
    ids[0, 0] = ids[0, -1] = 5
    pixels = torch.randn(2, 3, 56, 56)
    network.embed_prompt(ids, pixels[:1])
    with pytest.raises(ValueError, match="16 image placeholders for 32 patches"):
        network.embed_prompt(ids, pixels)
    with pytest.raises(ValueError, match="16 image placeholders for 0 patches"):
        network.embed_prompt(ids, None)
    with pytest.raises(ValueError, match="0 image placeholders for 16 patches"):
        network(input_ids=torch.ones(1, 4, dtype=torch.long), pixel_values=pixels[:1])


def test_the_sliding_window_sees_one_token_more_than_it_says(m3, tmp_path):
    """The original's mask counts the window without the token itself (recorded with transformers 4.41.2)."""
    recorded = json.loads((DATA / "sliding_window.json").read_text())
    base = shutil.copytree(m3.folder / "base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"sliding_window": recorded["sliding_window"]}))
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [479]}))
    plugins = {Task.COMPREHENSION: PluginSource(path=m3.folder / "com_hlora_weights.bin")}
    model = HealthGPT.from_sources(m3.sources(base=str(base), plugins=plugins, fusion=None, vqgan=None))
    answer = model.answer(recorded["question"], max_new_tokens=24, return_details=True)
    assert answer.token_ids == recorded["generated_ids"]


def test_a_vit_inside_a_whole_clip_model_loads(m3, tmp_path):
    """The released ViT is the vision half of a CLIP repository, its configuration nested in CLIP's."""
    from transformers import CLIPConfig, CLIPModel

    vision = CLIPVisionModel.from_pretrained(m3.folder / "vit")
    config = CLIPConfig(
        vision_config=vision.config.to_dict(),
        text_config={"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        projection_dim=16,
    )
    clip = CLIPModel(config)
    own = clip.vision_model.state_dict()
    clip.vision_model.load_state_dict({k: v for k, v in vision.state_dict().items() if k in own})
    clip.save_pretrained(tmp_path / "clip")
    shutil.copy(m3.folder / "vit" / "preprocessor_config.json", tmp_path / "clip")
    case = m3.cases[0]
    model = HealthGPT.from_sources(m3.sources(vit=str(tmp_path / "clip")))
    answer = model.answer(case["question"], m3.image(case), max_new_tokens=24, return_details=True)
    assert answer.token_ids == case["generated_ids"]
