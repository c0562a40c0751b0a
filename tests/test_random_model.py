"""The stand-in model is a whole model folder, the same for the same seed."""

import torch

from healthgpt import HealthGPT
from healthgpt.checkpoints import read_plugin
from healthgpt.config import folder_sources
from healthgpt.random_model import RandomShape, write_random_model
from healthgpt.tasks import Task


def test_the_same_seed_gives_the_same_model(random_folder, tmp_path):
    again = write_random_model(tmp_path / "again")
    other = write_random_model(tmp_path / "other", seed=1)
    first, second, third = (
        read_plugin(folder_sources(folder).plugins[Task.GENERATION]).adapter for folder in (random_folder, again, other)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


def test_writing_leaves_the_global_generator_alone(tmp_path):
    state = torch.get_rng_state()
    write_random_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)


def test_other_shapes_work(tmp_path):
    shape = RandomShape(
        width=96,
        layers=2,
        heads=6,
        kv_heads=2,
        mlp=160,
        dtype=torch.bfloat16,
        num_codes=16,
        drawing_side=32,
        num_experts=2,
    )
    model = HealthGPT.from_pretrained(write_random_model(tmp_path / "model", shape))
    assert next(model._network.parameters()).dtype is torch.bfloat16
    drawn = model.draw("Draw.", return_details=True)
    assert len(drawn.indices) == 16
    assert drawn.image.size == (32, 32)
