"""What is faster and changes results: how far it does, and that nothing of it is taken unless asked for."""

import json

import numpy as np
import pytest
import torch

from healthgpt import HealthGPT, Request, Task
from healthgpt.cli import main
from healthgpt.decoding import Decoding
from healthgpt.engine.attention import Spots
from healthgpt.engine.cache import CacheShape, KeyValueCache, as_kept
from healthgpt.engine.choosing import Chooser
from healthgpt.engine.decoder import decoders_of
from healthgpt.engine.drawing import draw_codes
from healthgpt.engine.linear import fuse
from healthgpt.engine.rounded import RoundedWeight
from healthgpt.engine.side_by_side import draw_codes_side_by_side, passes_of, stand_in
from healthgpt.hlora import HLoraConfig, attach_adapter
from healthgpt.loading import LoadOptions, load_model
from healthgpt.shortcuts import Shortcuts
from healthgpt.sources import named_sources

GREEDY = Decoding()
ASKED = (
    "Turn this CT into an MRI.",
    "Reconstruct the image.",
    "Draw the chest X-ray of this report: The heart is enlarged.",
)
IMAGES = (["healthgpt/examples/brain_ct.png"], ["healthgpt/examples/brain_mri.png"], [])
E4M3 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def nano():
    return HealthGPT.from_pretrained("nano", device="cpu")


def requests() -> list[Request]:
    return [Request(task=Task.GENERATION, question=q, images=i) for q, i in zip(ASKED, IMAGES, strict=True)]


def mean_difference(one, other) -> float:
    """In grey levels."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def test_nothing_is_taken_unless_asked_for():
    assert Shortcuts().names == []
    assert Shortcuts(int8_weights=True, row_lead=3).names == ["int8_weights", "row_lead 3"]
    with pytest.raises(ValueError, match="row_lead is 0, expected at least 1"):
        Shortcuts(row_lead=0)


@pytest.mark.parametrize(
    ("shortcuts", "settings", "message"),
    [
        (Shortcuts(fp8_cache=True), {"num_beams": 2}, "fp8_cache: beams take no shortcuts, num_beams is 2"),
        (Shortcuts(row_lead=2), {"do_sample": True}, "row_lead 2 draws greedily"),
        (Shortcuts(row_lead=2), {"repetition_penalty": 1.2}, "row_lead 2 draws greedily"),
    ],
)
def test_what_a_shortcut_does_not_go_with_is_refused(shortcuts, settings, message, tmp_path, capsys):
    with pytest.raises(ValueError, match=message):
        shortcuts.refuse(Decoding(**settings))
    shortcuts.refuse(Decoding(repetition_penalty=1))
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    words += ["--fp8_cache"] if shortcuts.fp8_cache else ["--row_lead", "2"]
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "text": "Why?"}\n')
    batch = ["batch", "--input", str(tmp_path / "q.jsonl"), "--output", str(tmp_path / "a.jsonl")]
    for command in (["draw", "--save_path", str(tmp_path / "o.png")], batch):
        assert main([*command, *words]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


# --- rows at once


@pytest.mark.parametrize(
    ("rows", "columns", "lead"), [(8, 8, 3), (4, 6, 1), (3, 5, 5), (3, 5, 9), (1, 4, 2), (5, 1, 1)]
)
def test_every_code_is_chosen_once_and_behind_the_row_above(rows, columns, lead):
    passes = passes_of(rows * columns, columns, lead)
    assert sorted(place for places in passes for place in places) == list(range(rows * columns))
    assert len(passes) == columns + (rows - 1) * min(lead, columns)
    known: set[int] = set()
    for places in passes:
        for place in places:
            above, column = divmod(place - columns, columns)
            if above >= 0:
                assert known >= {above * columns + i for i in range(min(columns, column + min(lead, columns)))}
        known.update(places)


def test_a_lead_of_a_whole_row_is_plain_drawing(nano):
    """Alone and together, prompts of unequal lengths; who watches is told in order."""
    engine, vocabulary = nano._engine, nano._processor.image_vocabulary
    count, columns = nano._vqgan.config.num_codes, nano._vqgan.config.grid[1]
    prompts = [nano._prompt(request) for request in requests()]
    expected = engine.draw(prompts, GREEDY, vocabulary, count)
    decoder = engine._decoders[Task.GENERATION]
    with torch.inference_mode():
        for chosen in ([0], [1], [2], [0, 1, 2]):
            embedded, told = engine._embedded([prompts[i] for i in chosen]), []
            ids = draw_codes_side_by_side(decoder, embedded, vocabulary, count, columns, columns, told.append)
            assert ids == [expected[i] for i in chosen]
            assert (torch.stack(told, dim=1) + vocabulary.first_code_id).tolist() == ids


def test_the_border_stands_in_for_the_border():
    """Of a grid of 4 columns: the end of the row above if it is known, of the one above that, the row's own begin."""
    assert stand_in(11, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 4) == 7
    assert stand_in(11, {0, 1, 2, 3, 4, 5, 6, 8}, 4) == 3
    assert stand_in(11, {0, 1, 2, 4, 5, 8}, 4) == 8


def test_a_window_narrows_what_rows_see(random_folder):
    """A sliding window that is shorter than prompt and picture: with a lead of a whole row, plain drawing still."""
    model = HealthGPT.from_pretrained(random_folder, device="cpu")
    model._network.config.text_config.sliding_window = 9
    with torch.inference_mode():
        decoder = decoders_of(model._network)[Task.GENERATION]
        assert decoder.attention.window == 9
        vocabulary, config = model._processor.image_vocabulary, model._vqgan.config
        embedded = model._engine._embedded([model._prompt(Request(task=Task.GENERATION, question="A chest. " * 6))])
        plain = draw_codes(decoder, Chooser(GREEDY, 1.0, 0, vocabulary), embedded, vocabulary, config.num_codes)
        columns = config.grid[1]
        ids = draw_codes_side_by_side(decoder, embedded, vocabulary, config.num_codes, columns, columns)
    assert ids == plain


def test_rows_at_once_draw_alike(nano):
    """With a lead of half a row: far nearer to the plain picture than another is, alone as together, rows in order."""
    leading = HealthGPT.from_pretrained("nano", device="cpu", shortcuts=Shortcuts(row_lead=4))
    plain = nano.run_batch(requests())
    together = leading.run_batch(requests())
    apart = mean_difference(plain[0].image, plain[2].image)
    for request, expected, drawing in zip(requests(), plain, together, strict=True):
        assert mean_difference(expected.image, drawing.image) < apart / 3
        assert leading.run_batch([request])[0].indices == drawing.indices
    *partial, last = leading.stream_drawing(ASKED[0], IMAGES[0])
    assert last.indices == together[0].indices
    assert [part.indices for part in partial] == [last.indices[: len(part.indices)] for part in partial]
    sampled = {"do_sample": True, "seed": 3}
    assert (
        leading.draw(*ASKED[:1], IMAGES[0], **sampled).tobytes()
        == nano.draw(*ASKED[:1], IMAGES[0], **sampled).tobytes()
    )


# --- weights in 8 bits


def test_a_rounded_weight_is_near_and_few_tokens_use_it():
    torch.manual_seed(0)
    weight = torch.randn(48, 64)
    weight[5] = 0
    rounded = RoundedWeight(weight)
    x = torch.randn(3, 64)
    exact = x.double() @ weight.double().T
    assert (rounded(x).double() - exact).norm() < 0.02 * exact.norm()
    assert rounded(x)[:, 5].eq(0).all()
    assert rounded(x).dtype is torch.float32
    body = torch.nn.ModuleDict({"a": torch.nn.Linear(64, 48), "b": torch.nn.Linear(64, 32, bias=False)})
    attach_adapter(body, Task.COMPREHENSION, HLoraConfig(r=16, lora_alpha=32, target_modules=["a", "b"]))
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    with torch.inference_mode():
        layers = [body["a"], body["b"]]
        whole = fuse(layers, [Task.COMPREHENSION], into_one=False)[Task.COMPREHENSION]
        made = fuse(layers, [Task.COMPREHENSION], into_one=True, int8=True)[Task.COMPREHENSION]
        many, few = torch.randn(40, 64), torch.randn(4, 64)
        assert torch.equal(made(many), whole(many))
        difference = (made(few) - whole(few)).norm() / whole(few).norm()
    assert 0 < difference < 0.02


@pytest.mark.parametrize("shortcut", ["int8_weights", "fp8_cache"])
def test_eight_bits_change_little(nano, shortcut):
    rounded = HealthGPT.from_pretrained("nano", device="cpu", shortcuts=Shortcuts(**{shortcut: True}))
    for name in ("brain_ct", "chest_xray", "fundus", "oct"):
        image = f"healthgpt/examples/{name}.png"
        assert rounded.answer("What imaging modality is this?", image) == nano.answer(
            "What imaging modality is this?", image
        )
    for question, image in zip(ASKED[:2], IMAGES[:2], strict=True):
        assert mean_difference(rounded.draw(question, image), nano.draw(question, image)) < 12
    # Together, prompts of unequal lengths: the cache is written by index.
    assert len(rounded.run_batch(requests())) == 3


def test_beams_take_no_shortcut(nano):
    rounded = HealthGPT.from_pretrained("nano", device="cpu", shortcuts=Shortcuts(int8_weights=True, fp8_cache=True))
    image = IMAGES[0]
    assert rounded.answer("Describe this image.", image, num_beams=2) == nano.answer(
        "Describe this image.", image, num_beams=2
    )


# --- keys and values in 8 bits


def test_a_cache_in_8_bits_takes_a_quarter_and_has_no_nan(nano):
    shape = nano._engine._decoders[Task.COMPREHENSION].cache_shape
    small = CacheShape(**{**shape.__dict__, "dtype": E4M3})
    assert 4 * small.bytes_of(3, 100) == shape.bytes_of(3, 100)
    assert as_kept(torch.tensor([1e6, -1e6, 0.5]), E4M3).float().tolist() == [448, -448, 0.5]
    cache = KeyValueCache(small, 2, 64)
    other = KeyValueCache(small, 3, 64)
    cache.keys.copy_(torch.randn(cache.keys.shape).to(E4M3))
    other.take(cache, torch.tensor([1, 0, 1]), 5)
    for row, source in enumerate((1, 0, 1)):
        assert torch.equal(other.keys[:, row, :, :5].float(), cache.keys[:, source, :, :5].float())


def test_keys_and_values_are_kept_in_8_bits():
    rounded = HealthGPT.from_pretrained("nano", device="cpu", shortcuts=Shortcuts(fp8_cache=True))
    decoder = rounded._engine._decoders[Task.COMPREHENSION]
    cache = KeyValueCache(decoder.cache_shape, 1, 64)
    x = torch.randn(1, 4, decoder.embeddings.shape[1])
    with torch.inference_mode():
        decoder.read(x, cache, Spots(positions=torch.arange(4).unsqueeze(0), start=0, live=4))
    assert cache.keys.dtype is E4M3
    assert cache.keys[:, :, :, :4].float().abs().sum() > 0


# --- asked for by flags


def test_kernels_that_cannot_read_8_bits_refuse_them(random_folder, monkeypatch):
    loaded = load_model(named_sources(str(random_folder)), LoadOptions(device="cpu"))
    monkeypatch.setattr("healthgpt.engine.decoder.kernels_for", lambda tensor: object())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(ValueError, match=r"fp8_cache: A100 has compute capability 8.0, 8-bit floats take 8.9 or more"):
        HealthGPT(loaded, Shortcuts(fp8_cache=True))


def test_no_tokens_are_not_multiplied_in_8_bits():
    """A GPU's product fails at them; the last layer has none where prompts share a beginning."""
    assert [RoundedWeight.fits(tokens) for tokens in (0, 1, 16, 17)] == [False, True, True, False]


def test_flags_reach_the_engine_and_the_answers_file(tmp_path):
    questions = tmp_path / "q.jsonl"
    questions.write_text(
        json.dumps({"id": 1, "question": ASKED[0], "image": IMAGES[0][0], "task": "generation"}) + "\n"
    )
    output = tmp_path / "a.jsonl"
    command = ["batch", "--input", str(questions), "--output", str(output), "--image_folder", ".", "--device", "cpu"]
    assert main([*command, "--row_lead", "2", "--fp8_cache"]) == 0
    assert '"shortcuts": ["fp8_cache", "row_lead 2"]' in output.read_text().splitlines()[0]


def test_what_cannot_be_is_one_line(tmp_path, capsys):
    assert main(["answer", "--question", "CT?", "--row_lead", "0"]) == 2
    assert "row_lead is 0, expected at least 1" in capsys.readouterr().err


def test_a_network_that_the_engine_does_not_run_has_no_shortcuts(random_folder):
    loaded = load_model(named_sources(str(random_folder)), LoadOptions(device="cpu"))
    loaded.network.model.language_model.config.rope_parameters["rope_type"] = "longrope"
    HealthGPT(loaded)
    with pytest.raises(
        ValueError, match=r"fp8_cache: the engine does not run this model .*position encoding 'longrope'"
    ):
        HealthGPT(loaded, Shortcuts(fp8_cache=True))
