"""H-LoRA equals the original's formula, and its siblings are what they claim to be."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from healthgpt.hlora import (
    HLoraConfig,
    HLoraLinear,
    LoraLinear,
    MoELoraLinear,
    adapter_parameters,
    attach_adapter,
    linear_names,
)
from healthgpt.model import HealthGPTForConditionalGeneration


class Body(nn.Module):
    """Two linear layers, as small as an LLM's body can be."""

    def __init__(self, width: int = 24, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.up_proj = nn.Linear(width, 2 * width, dtype=dtype)
        self.down_proj = nn.Linear(2 * width, width, dtype=dtype)

    def forward(self, x):
        return self.down_proj(torch.tanh(self.up_proj(x)))


def adapted(
    adapter: str, r: int = 8, num_experts: int = 4, alpha: int = 16, task: str = "comprehension", **more
) -> Body:
    body = Body()
    attach_adapter(
        body,
        task,
        HLoraConfig(
            r=r, lora_alpha=alpha, num_experts=num_experts, adapter=adapter, target_modules=linear_names(body), **more
        ),
    )
    body.double()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return body


def by_the_formula(layer: HLoraLinear, x: torch.Tensor, task: str, scale: float) -> torch.Tensor:
    """The original's H-LoRA written plainly: y = Wx + b + (repeat(softmax(Rx)) * s * Ax) B."""
    a, b, route = (part[task].weight for part in (layer.lora_A, layer.lora_B, layer.lora_route))
    gates = torch.softmax(x @ route.T, dim=-1).repeat_interleave(a.shape[0] // route.shape[0], dim=-1)
    return layer.base_layer(x) + (gates * (x @ a.T * scale)) @ b.T


def test_the_original_layer(m3):
    expected = m3.expected
    weight = expected["layer.weight"]
    body = nn.Module()
    body.proj = nn.Linear(*weight.shape[::-1], bias=False)
    meta = m3.meta["layer"]
    attach_adapter(
        body,
        "comprehension",
        HLoraConfig(r=meta["r"], lora_alpha=meta["alpha"], num_experts=meta["k"], target_modules=["proj"]),
    )
    with torch.no_grad():
        body.proj.base_layer.weight.copy_(weight)
        for kind in ("lora_A", "lora_B", "lora_route"):
            getattr(body.proj, kind)["comprehension"].weight.copy_(expected[f"layer.{kind}"])
        torch.testing.assert_close(body.proj(expected["layer.x"]), expected["layer.y"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("r", "num_experts"), [(4, 1), (8, 2), (8, 4), (8, 8), (32, 4), (64, 32)])
def test_any_rank_and_number_of_experts_equals_the_formula(r, num_experts):
    torch.manual_seed(0)
    layer = adapted("hlora", r, num_experts).up_proj
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    expected = by_the_formula(layer, x, "comprehension", 16 / r * num_experts)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


def test_moelora_with_the_same_experts_is_hlora():
    """The point of H-LoRA: the merged matrices compute the mixture of the separate experts."""
    torch.manual_seed(0)
    merged, separate = adapted("hlora").up_proj, adapted("moelora").up_proj
    assert isinstance(separate, MoELoraLinear)
    with torch.no_grad():
        separate.base_layer.load_state_dict(merged.base_layer.state_dict())
        separate.lora_route.load_state_dict(merged.lora_route.state_dict())
        for i in range(4):
            block = slice(2 * i, 2 * i + 2)
            separate.lora_A["comprehension"][i].weight.copy_(merged.lora_A["comprehension"].weight[block])
            separate.lora_B["comprehension"][i].weight.copy_(merged.lora_B["comprehension"].weight[:, block])
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    torch.testing.assert_close(merged(x), separate(x), atol=1e-12, rtol=0)


def test_lora_is_pefts():
    torch.manual_seed(0)
    ours = adapted("lora")
    assert isinstance(ours.up_proj, LoraLinear)
    theirs = get_peft_model(Body(), LoraConfig(r=8, lora_alpha=16, target_modules=["up_proj", "down_proj"])).double()
    state = {f"base_model.model.{k.replace('comprehension', 'default')}": v for k, v in ours.state_dict().items()}
    assert not theirs.load_state_dict(state, strict=True).missing_keys
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("adapter", ["hlora", "moelora", "lora"])
def test_a_fresh_adapter_changes_nothing(adapter):
    body = Body(dtype=torch.float32)
    x = torch.randn(2, 24)
    before = body(x)
    attach_adapter(
        body, "comprehension", HLoraConfig(r=8, lora_alpha=16, adapter=adapter, target_modules=linear_names(body))
    )
    torch.testing.assert_close(body(x), before, atol=0, rtol=0)


@pytest.mark.parametrize("adapter", ["hlora", "moelora", "lora"])
def test_two_tasks_of_different_rank_share_one_weight(adapter):
    torch.manual_seed(0)
    body = adapted(adapter, r=8)
    weight = body.up_proj.base_layer.weight
    config = HLoraConfig(r=16, lora_alpha=32, adapter=adapter, target_modules=linear_names(body))
    attach_adapter(body, "generation", config)
    body.double()
    for parameter in adapter_parameters(body, "generation").values():
        nn.init.normal_(parameter)
    assert body.up_proj.base_layer.weight is weight
    x = torch.randn(2, 24, dtype=torch.float64)
    outputs = {}
    for task in ("comprehension", "generation", "comprehension"):
        for layer in (body.up_proj, body.down_proj):
            layer.set_adapter(task)
        previous = outputs.setdefault(task, body(x))
        torch.testing.assert_close(body(x), previous, atol=0, rtol=0)
    assert not torch.allclose(outputs["comprehension"], outputs["generation"])


def test_routing_leaves_requires_grad_alone():
    """peft's own set_adapter would make the chosen adapter trainable behind the optimizer's back."""
    body = adapted("hlora")
    config = HLoraConfig(r=8, lora_alpha=16, target_modules=linear_names(body))
    attach_adapter(body, "generation", config)
    body.requires_grad_(False)
    adapter_parameters(body, "comprehension")["up_proj.lora_A.weight"].requires_grad_(True)
    before = {name: p.requires_grad for name, p in body.named_parameters()}
    assert sum(before.values()) == 1
    for task in ("generation", "comprehension", ["generation"]):
        for layer in (body.up_proj, body.down_proj):
            layer.set_adapter(task)
    assert {name: p.requires_grad for name, p in body.named_parameters()} == before


def test_routing_a_whole_model_leaves_requires_grad_alone(m3_model):
    network: HealthGPTForConditionalGeneration = m3_model._network
    for task in network.tasks:
        network.route(task)
        assert not any(p.requires_grad for p in network.parameters())


def test_plain_peft_does_not_read_a_saved_hlora_as_lora(random_folder, tmp_path):
    """The trap: under peft's own type the folder would load without an error and compute something else."""
    settings = json.loads((random_folder / "comprehension" / "adapter_config.json").read_text())
    with pytest.raises(KeyError, match="HLORA"):
        PeftModel.from_pretrained(Body(), random_folder / "comprehension")
    # What is being prevented: the same tensors under peft's type do load, and silently lose the router.
    body = adapted("hlora")
    tensors = {f"base_model.model.{k}": v.contiguous() for k, v in adapter_parameters(body, "comprehension").items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    wrong = settings | {"peft_type": "LORA", "task_type": None, "target_modules": ["up_proj", "down_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(wrong))
    bare = Body()
    bare.load_state_dict({k.replace("base_layer.", ""): v for k, v in body.state_dict().items() if "lora_" not in k})
    with pytest.warns(UserWarning, match="num_experts"):
        silently = PeftModel.from_pretrained(bare, tmp_path)
    x = torch.randn(2, 24, dtype=torch.float64)
    assert (silently(x) - body(x)).abs().max() > 1e-3


def test_merging_is_refused():
    with pytest.raises(ValueError, match="depends on the token"):
        adapted("hlora").up_proj.merge()


def test_dropout_acts_between_a_and_b():
    torch.manual_seed(0)
    layer = adapted("hlora", lora_dropout=0.5).up_proj
    x = torch.randn(2, 24, dtype=torch.float64)
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.base_layer(x), layer.base_layer(x))


@pytest.mark.parametrize("adapter", ["hlora", "moelora", "lora"])
def test_gradients_are_right(adapter):
    torch.manual_seed(0)
    layer = adapted(adapter).up_proj
    x = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    parameters = tuple(p for n, p in layer.named_parameters() if "lora_" in n)
    for parameter in parameters:
        parameter.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *parameters))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 6, "num_experts": 4}, "rank 6 is not divisible by the number of experts 4"),
        ({"r": 0}, "must be positive"),
        ({"r": 8, "lora_alpha": 0}, "must be positive"),
        ({"r": 8, "adapter": "dora"}, "adapter 'dora' is none of hlora, moelora, lora"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HLoraConfig(**{"lora_alpha": 16, "target_modules": ["up_proj"], **settings})
