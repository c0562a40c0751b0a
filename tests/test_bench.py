"""`healthgpt bench`: floors by hand and of the true shapes, ways that give the oracle's tokens, files, mistakes."""

import json

import pytest
import torch
from transformers import AutoConfig

from healthgpt.bench.agreement import Agreement, Margins, agreement
from healthgpt.bench.ceilings import measure_ceilings
from healthgpt.bench.figures import figures
from healthgpt.bench.floor import Ceilings, Sizes
from healthgpt.bench.measuring import Measurement, launches_per_token
from healthgpt.bench.original import Original, OriginalLinear
from healthgpt.bench.run import BenchSettings, bench
from healthgpt.bench.shapes import SHAPES
from healthgpt.bench.subject import Subject
from healthgpt.bench.tables import markdown
from healthgpt.bench.ways import AHEAD, COMPILED, ENGINE, GENERATE, ORIGINAL, Way, ways_of, why_not_compiled
from healthgpt.cli import main
from healthgpt.loading import LoadOptions
from healthgpt.sources import named_sources
from healthgpt.tasks import Task

CPU = LoadOptions(device="cpu")
H200 = Ceilings(bandwidth=4.3e12, peak=790e12)


def nothing(done: int, total: int, text: str) -> None:
    """Tells nobody."""


@pytest.fixture(scope="module")
def nano() -> Subject:
    return Subject.of_model("nano", named_sources("nano"), CPU)


@pytest.fixture(scope="module")
def tiny() -> Subject:
    return Subject.of_shape("tiny", CPU)


# Floors


def test_floors_by_hand():
    """One layer of two linears, 2 -> 3 and 3 -> 2, one head of width 2, bytes of 4 per number."""
    sizes = Sizes(linears=((2, 3), (3, 2)), width=2, layers=1, heads=1, kv_heads=1, head_width=2, experts=4, itemsize=4)
    assert sizes.weights == 6 + 6
    assert sizes.adapter(8) == 8 * (2 + 3) + 4 * 2 + 8 * (3 + 2) + 4 * 3
    assert sizes.adapter(0) == 0
    assert sizes.cache_bytes == 2 * 2 * 4  # a key and a value
    read = 12 + 100 + 7 * 2
    step = sizes.step(rank=8, batch=3, context=5, rows=7)
    assert step.bytes == 4 * read + 3 * 5 * 16
    assert step.flops == 3 * (2 * read + 4 * 5 * 2)
    prompts = sizes.prompts(rank=8, batch=3, tokens=10, rows=7)
    assert prompts.bytes == 4 * read + 3 * 10 * 16
    assert prompts.flops == 3 * (2 * 112 * 10 + 2 * 100 * 2 + 2 * 14)
    assert step.seconds(Ceilings(bandwidth=1, peak=1e9)) == step.bytes
    assert step.seconds(Ceilings(bandwidth=1e9, peak=1)) == step.flops
    assert Ceilings(bandwidth=1, peak=4).or_higher(Ceilings(bandwidth=3, peak=2)) == Ceilings(bandwidth=3, peak=4)


# Weights (10⁹), H of rank 64 and 256 (10⁶), cache of a token (KiB), steps (rank, batch, context -> GB, ms), prompts of
# 640 tokens by rank (ms), an image of 1,026 steps by batch (s): worked out apart from this project, for an H200.
TRUE_FLOORS = {
    "m3": (3.624, 102.9, 404.9, 384, {
        (0, 1, 704): (7.77, 1.807), (0, 32, 704): (16.35, 3.803), (64, 1, 704): (7.98, 1.855),
        (64, 32, 704): (16.56, 3.851), (256, 1, 1152): (8.76, 2.037), (256, 32, 1152): (22.80, 5.302),
    }, {0: 5.97, 64: 6.14, 256: 6.63}, {1: 2.04, 8: 2.80, 32: 5.39, 128: 15.78}),
    "l14": (13.631, 228.1, 896.6, 200, {
        (0, 1, 704): (28.52, 6.632), (0, 32, 704): (32.99, 7.672), (64, 1, 704): (28.97, 6.738),
        (64, 32, 704): (33.44, 7.778), (256, 1, 1152): (30.40, 7.071), (256, 32, 1152): (37.72, 8.772),
    }, {0: 22.30, 64: 22.67, 256: 23.75}, {1: 7.01, 8: 7.40, 32: 8.76, 128: 14.16}),
    "xl32": (31.206, 551.8, 2162.4, 256, {
        (0, 1, 704): (64.15, 14.919), (0, 32, 704): (69.87, 16.250), (64, 1, 704): (65.26, 15.176),
        (64, 32, 704): (70.98, 16.506), (256, 1, 1152): (68.60, 15.952), (256, 32, 1152): (77.96, 18.130),
    }, {0: 50.90, 64: 51.80, 256: 54.41}, {1: 16.02, 8: 16.52, 32: 18.25, 128: 25.17}),
}  # fmt: skip
VOCABULARIES = {"m3": 40206, "l14": 108547, "xl32": 152064}


@pytest.mark.parametrize("name", TRUE_FLOORS)
def test_floors_of_the_true_shapes(name):
    weights, small, large, cache, steps, prompts, images = TRUE_FLOORS[name]
    config = AutoConfig.for_model(**SHAPES[name].architecture)
    sizes, rows = Sizes.of(config), VOCABULARIES[name]
    assert sizes.weights / 1e9 == pytest.approx(weights, abs=5e-4)
    assert [sizes.adapter(rank) / 1e6 for rank in (64, 256)] == pytest.approx([small, large], abs=0.05)
    assert sizes.cache_bytes == cache * 1024
    for (rank, batch, context), (size, milliseconds) in steps.items():
        step = sizes.step(rank=rank, batch=batch, context=context, rows=rows)
        assert step.bytes / 1e9 == pytest.approx(size, abs=5e-3)
        assert 1000 * step.seconds(H200) == pytest.approx(milliseconds, abs=5e-4)
    for rank, milliseconds in prompts.items():
        found = sizes.prompts(rank=rank, batch=1, tokens=640, rows=rows)
        assert 1000 * found.seconds(H200) == pytest.approx(milliseconds, abs=5e-3)
    for batch, seconds in images.items():
        steps_of_image = (sizes.step(rank=256, batch=batch, context=640 + i, rows=8195) for i in range(1026))
        assert sum(step.seconds(H200) for step in steps_of_image) == pytest.approx(seconds, abs=5e-3)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_shapes_have_the_true_vocabularies(name):
    shape = SHAPES[name]
    assert shape.len_tokenizer + (shape.num_codes + 3 if shape.num_codes else 0) == VOCABULARIES[name]


def test_a_networks_own_sizes(nano):
    sizes = nano.sizes(Task.GENERATION)
    body = nano.network.model.language_model
    stored = sum(layer.base_layer.weight.numel() for layer in nano._adapted())
    adapters = sum(p.numel() for name, p in body.named_parameters() if ".lora_" in name and ".generation." in name)
    assert (sizes.weights, sizes.adapter(nano.rank(Task.GENERATION))) == (stored, adapters)
    assert sizes.itemsize == 4
    assert nano.rows(Task.GENERATION) == 1024
    assert nano.rows(Task.COMPREHENSION) == len(nano.network.heads[Task.COMPREHENSION].weight)


def test_ceilings_are_of_this_world():
    found = measure_ceilings(torch.device("cpu"), torch.float32)
    assert 1e8 < found.bandwidth < 1e13
    assert 1e8 < found.peak < 1e15


# Ways


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("count", [1, 3])
def test_every_way_gives_the_oracles_tokens(nano, task, count):
    prompts = nano.prompts(task, count)
    ways = {way.name: way for way in ways_of(nano, task, compiled=False) if count == 1 or not way.alone}
    expected = ways[GENERATE].decode(prompts, 20)
    assert [len(ids) for ids in expected] == [20] * count  # no token ends a text
    assert set(ways) >= {ORIGINAL, GENERATE, ENGINE}
    assert (AHEAD in ways) == (task is Task.GENERATION and count == 1)
    for name, way in ways.items():
        assert way.decode(prompts, 20) == expected, name


@pytest.mark.slow
def test_the_compiled_way_gives_the_oracles_tokens(tiny):
    if reason := why_not_compiled(tiny.device):
        pytest.skip(reason)
    for task in Task:
        prompts = tiny.prompts(task, 2)
        ways = {way.name: way for way in ways_of(tiny, task, compiled=True)}
        assert ways[COMPILED].decode(prompts, 8) == ways[GENERATE].decode(prompts, 8)


def test_the_originals_layer_is_its_formula_on_the_same_weights(tiny):
    task = Task.GENERATION
    original = Original(tiny, task)
    layers = [layer for layer in original._body.modules() if isinstance(layer, OriginalLinear)]
    mine = tiny._adapted()
    assert len(layers) == len(mine) == 8
    tiny.network.route(task)
    for theirs, layer in zip(layers, mine, strict=True):
        assert theirs.weight is layer.base_layer.weight
        assert theirs.b is layer.lora_B[task].weight
        x = torch.randn(2, 3, layer.in_features)
        torch.testing.assert_close(theirs(x), layer(x))


def test_random_weights_are_random_everywhere(tiny):
    for name, parameter in tiny.network.named_parameters():
        assert parameter.device.type == "cpu"
        if parameter.ndim > 1:
            assert parameter.std() > 1e-3, name


def test_a_rank_of_ones_own():
    subject = Subject.of_shape("tiny", CPU, rank=32)
    assert [subject.rank(task) for task in Task] == [32, 32]
    with pytest.raises(ValueError, match="rank 6 is not a multiple of 4"):
        Subject.of_shape("tiny", CPU, rank=6)


# Rows


def test_agreement_by_hand():
    margins = Margins(precision=0.01)  # 4 roundings at a largest logit of 2 are 0.08
    margins(torch.tensor([[2.0, 1.95, -torch.inf], [2.0, 1.0, 0.0]]))
    margins(torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]]))
    assert agreement([[1, 2], [3, 4]], [[1, 2], [3, 4]], margins) == Agreement(percent=100)
    assert agreement([[9, 2], [3, 4]], [[1, 2], [3, 4]], margins) == Agreement(percent=75, parted=1, undecided=1)
    assert agreement([[1, 9], [9, 9]], [[1, 2], [3, 4]], margins) == Agreement(percent=25, parted=2, undecided=0)


def test_operators_are_counted_per_token(tiny, monkeypatch):
    ways = {way.name: way for way in ways_of(tiny, Task.GENERATION, compiled=False)}
    prompts = tiny.prompts(Task.GENERATION, 1)
    counts = {name: launches_per_token(ways[name].decode, prompts, 8, tiny.device) for name in (ORIGINAL, ENGINE)}
    assert 10 < counts[ENGINE] < counts[ORIGINAL] / 2  # loops are no operators
    for decoder in tiny.engine._decoders.values():
        monkeypatch.setattr(decoder, "_small", None)
    counts[ENGINE] = launches_per_token(ways[ENGINE].decode, prompts, 8, tiny.device)
    assert 50 < counts[ENGINE] < counts[ORIGINAL] < 500
    # Two layers of four linears, each of them nine operators in the original.
    assert counts[ORIGINAL] >= 2 * 4 * 9


def test_a_row_without_memory_leaves_the_others(tiny):
    def hungry(prompts, num_tokens):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    def refused(prompts, num_tokens):
        raise ValueError("9 GiB do not fit into 8 GiB")

    ways = ways_of(tiny, Task.COMPREHENSION, compiled=False)
    ways[1:1] = [Way(name="hungry", decode=hungry), Way(name="refused", decode=refused)]
    measurement = Measurement(tiny, {Task.COMPREHENSION: ways}, {Task.COMPREHENSION: 4}, [1], nothing)
    measurement.run(rounds=2)
    assert [row.failure for row in measurement.rows] == [
        None, "out of memory", "9 GiB do not fit into 8 GiB", None, None,
    ]  # fmt: skip
    assert [len(row.whole) for row in measurement.rows] == [2, 0, 0, 2, 2]
    found = [figures(row, measurement.rows[0], tiny, H200) for row in measurement.rows]
    assert len({tuple(one) for one in found}) == 1  # of every row the same keys
    assert found[0]["speed_up"] == 1
    assert found[1]["tokens_per_second"] is None
    assert found[4]["agreement"]["percent"] == 100


def test_an_error_of_ours_is_no_row(tiny):
    def wrong(prompts, num_tokens):
        raise RuntimeError("shapes do not fit")

    ways = {Task.COMPREHENSION: [Way(name="wrong", decode=wrong)]}
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Measurement(tiny, ways, {Task.COMPREHENSION: 4}, [1], nothing).run(rounds=1)


def test_an_interrupted_run_keeps_what_it_has(tiny):
    def tell(done, total, text):
        if done == 2 * 3 + 1:  # after the first row of the first round
            raise KeyboardInterrupt

    report = bench(tiny, BenchSettings(batches=[1], new_tokens=4, codes=0, rounds=2), tell)
    assert report["interrupted"]
    assert [row["failure"] for row in report["rows"]] == [None, "interrupted", "interrupted"]
    assert [row["rounds"] for row in report["rows"]] == [1, 0, 0]
    assert "| generate | 1 | interrupted |" in markdown(report)


def test_images_of_fewer_codes_are_told_whole(tiny):
    ways = {Task.GENERATION: ways_of(tiny, Task.GENERATION, compiled=False)[:1]}
    measurement = Measurement(tiny, ways, {Task.GENERATION: 6}, [2], nothing)
    [row] = measurement.rows
    row.first, row.whole = [1.0, 1.0], [2.0, 2.0]  # 0.2 s per step, 16 codes
    found = figures(row, None, tiny, H200)
    assert found["step_ms"] == pytest.approx(200)
    assert found["seconds_per_image"] == pytest.approx((1.0 + 15 * 0.2) / 2)
    assert found["tokens_per_second"] == pytest.approx(2 * 6 / 2.0)
    assert found["share_of_floor"] == pytest.approx(found["floor_step_ms"] / 200)
    assert found["speed_up"] is None


# The command


def run(arguments: list[str], capsys) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_writes_all_files(tmp_path, capsys):
    folder = tmp_path / "a" / "b"
    arguments = ["bench", "--shape", "tiny", "--device", "cpu", "--batch", "2", "--new_tokens", "4", "--rounds", "1"]
    code, out, _ = run([*arguments, "--output", str(folder)], capsys)
    assert code == 0
    assert (folder / "bench.md").read_text() == out
    report = json.loads((folder / "bench.json").read_text())
    assert report["subject"]["name"] == "tiny (random weights)"
    assert [(row["task"], row["way"], row["batch"]) for row in report["rows"]] == [
        (task, way, batch) for task in ("text", "image") for batch in (1, 2) for way in (ORIGINAL, GENERATE, ENGINE)
    ]
    assert {row["agreement"]["percent"] for row in report["rows"]} == {100}
    assert all(row["step_bytes"] > 0 and row["launches_per_token"] > 0 for row in report["rows"])
    assert [note.partition(",")[0] for note in report["left_out"]] == ["static cache", "engine"]
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "## Image: 16 codes after prompts of 24 tokens" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape", "m3", "--model", "nano"], "--shape and --model exclude each other"),
        (["--rank", "64"], "--rank is of --shape"),
        (["--shape", "tiny", "--rank", "7"], "rank 7 is not a multiple of 4"),
        (["--shape", "tiny", "--batch", "0"], "batch is 0, expected at least 1"),
        (["--shape", "tiny", "--rounds", "0"], "rounds is 0, expected at least 1"),
        (["--shape", "tiny", "--new_tokens", "1"], "new_tokens is 1, expected 0 (none) or at least 2"),
        (["--shape", "tiny", "--new_tokens", "0", "--codes", "0"], "nothing to measure"),
        (["--shape", "tiny", "--codes", "17"], "codes is 17, but tiny has 16 per image"),
        (["--shape", "tiny", "--new_tokens", "9999"], "exceed the context of"),
        (["--shape", "tiny", "--device", "cuda:77"], "device 'cuda:77' is not there"),
        (["--shape", "tiny", "--dtype", "FP8"], "dtype 'FP8' is none of"),
        (["--model", "no/such/folder"], "neither a model folder nor one of the models"),
    ],
)
def test_mistakes_are_one_line(flags, message, capsys):
    code, _, err = run(["bench", "--device", "cpu", *flags], capsys)
    assert code == 2
    assert message in err
    assert err.startswith("healthgpt bench: error: ")
    assert len(err.splitlines()) == 1


def test_a_shape_that_is_none(capsys):
    code, _, err = run(["bench", "--shape", "m5"], capsys)
    assert code == 2
    assert "invalid choice: 'm5'" in err


def test_the_commands_shapes_are_all_there_are():
    from healthgpt.cli import benching

    assert set(benching._SHAPES) == set(SHAPES)
