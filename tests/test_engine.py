"""The engine gives the oracle's tokens: every golden model, both tasks, alone and together, guessed ahead or not."""

import contextlib
import itertools

import pytest
import torch
from transformers import Qwen2Config

from healthgpt import HealthGPT, Request, Task
from healthgpt.batch.worker import Worker
from healthgpt.bench.agreement import Margins
from healthgpt.decoding import Decoding, FirstTokenConfidence
from healthgpt.engine.cache import CacheShape, KeyValueCache
from healthgpt.engine.choosing import Chooser, refuse_nan
from healthgpt.engine.decoder import UnsupportedError, _window_of, decoders_of
from healthgpt.engine.drawing import draw_codes
from healthgpt.engine.linear import fuse
from healthgpt.engine.memory import free_bytes
from healthgpt.engine.prompts import EmbeddedPrompt, read_prompts
from healthgpt.engine.routing import add_routed
from healthgpt.engine.speculation import Guesser, Hopes, draw_codes_ahead
from healthgpt.engine.stepping import Steppers
from healthgpt.hlora import HLoraConfig, attach_adapter
from healthgpt.loading import DTYPES, LoadOptions
from healthgpt.shortcuts import Shortcuts
from healthgpt.targets import codes_of

NEW_TOKENS = 24
GREEDY = Decoding()


def until_stop(ids: list[int], stops: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(ids) if token in stops]
    return ids[: ends[0] + 1] if ends else ids


def prompts_of(model: HealthGPT, requests: list[Request]):
    return [model._prompt(request) for request in requests]


SETTINGS = {
    "greedy": GREEDY,
    "penalised": Decoding(repetition_penalty=1.3),
    "sampled": Decoding(do_sample=True, temperature=0.7, top_p=0.9, seed=5),
}


@pytest.fixture(params=["loops", "operators"])
def read_by(request, golden_model, monkeypatch):
    """What the engine's few tokens are read by on a CPU."""
    for decoder in golden_model._engine._decoders.values():
        if decoder._small is None:
            pytest.skip("Numba is not installed")
        if request.param == "operators":
            monkeypatch.setattr(decoder, "_small", None)


@pytest.mark.usefixtures("read_by")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_golden_answers_are_the_oracles(golden, golden_model, settings):
    engine = golden_model._engine
    prompts = prompts_of(golden_model, [golden.request(case) for case in golden.cases if case["task"] == "com"])
    alone = [engine.oracle.generate([prompt], settings, NEW_TOKENS)[0] for prompt in prompts]
    expected = [until_stop(ids, engine.stop_ids) for ids in alone]
    assert [engine.answer([prompt], settings, [NEW_TOKENS])[0] for prompt in prompts] == expected
    assert engine.answer(prompts, settings, [NEW_TOKENS] * len(prompts)) == expected
    shorter = list(range(1, len(prompts) + 1))
    assert engine.answer(prompts, settings, shorter) == [
        ids[:most] for ids, most in zip(expected, shorter, strict=True)
    ]


@pytest.mark.usefixtures("read_by")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_golden_drawings_are_the_oracles(golden, golden_model, settings):
    if not golden.draws:
        pytest.skip("this release has no drawing plugin")
    engine, vocabulary = golden_model._engine, golden_model._processor.image_vocabulary
    count = golden_model._vqgan.config.num_codes
    requests = [golden.request(case) for case in golden.cases if case["task"] == "gen"]
    prompts = prompts_of(golden_model, requests)
    expected = [engine.oracle.generate([p], settings, count, codes_of=vocabulary)[0] for p in prompts]
    assert [engine.draw([p], settings, vocabulary, count)[0] for p in prompts] == expected
    assert engine.draw(prompts, settings, vocabulary, count) == expected
    for request, prompt, ids in zip(requests, prompts, expected, strict=True):
        if request.images:
            given = codes_of(golden_model._vqgan, request.images[0])
            assert engine.draw([prompt], settings, vocabulary, count, given=lambda given=given: given)[0] == ids


class Repeating:
    """Captures as a GPU does, by trying the work some times, but what it gives does the work itself."""

    captures = 0

    def __call__(self, work, rewind):
        Repeating.captures += 1
        for _ in range(3):
            rewind()
            work()
        rewind()
        return work


@pytest.mark.parametrize("settings", [GREEDY, SETTINGS["penalised"]], ids=["greedy", "penalised"])
@pytest.mark.parametrize("new_capture", [None, Repeating])
def test_steps_that_nobody_looks_at_are_the_oracles(golden, golden_model, new_capture, settings, monkeypatch):
    """Alone and together, prompts of unequal lengths, a cache that has to grow, a stepper used again."""
    engine, vocabulary = golden_model._engine, golden_model._processor.image_vocabulary
    Repeating.captures = 0
    monkeypatch.setattr(engine, "_steppers", Steppers(new_capture))
    monkeypatch.setattr("healthgpt.engine.stepping._GRAIN", 32)
    monkeypatch.setattr("healthgpt.engine.cohorts._ROOM", 2)
    prompts = prompts_of(golden_model, [golden.request(case) for case in golden.cases if case["task"] == "com"])
    assert len({golden_model._processor.expanded_length(prompt) for prompt in prompts}) > 1
    most = 90
    expected = [until_stop(engine.oracle.generate([prompt], settings, most)[0], engine.stop_ids) for prompt in prompts]
    for _ in range(2):
        assert engine.answer(prompts, settings, [most] * len(prompts)) == expected
    assert [engine.answer([prompt], settings, [most])[0] for prompt in prompts] == expected
    shorter = list(range(1, len(prompts) + 1))
    assert engine.answer(prompts, settings, shorter) == [ids[:n] for ids, n in zip(expected, shorter, strict=True)]
    if golden.draws:
        requests = [golden.request(case) for case in golden.cases if case["task"] == "gen"]
        count = golden_model._vqgan.config.num_codes
        prompts = prompts_of(golden_model, requests)
        drawn = [engine.oracle.generate([p], settings, count, codes_of=vocabulary)[0] for p in prompts]
        seen = []
        assert (
            engine.draw(prompts, settings, vocabulary, count, watch=lambda codes: seen.append(codes.clone())) == drawn
        )
        assert (torch.stack(seen, dim=1) + vocabulary.first_code_id).tolist() == drawn
        assert [engine.draw([p], settings, vocabulary, count)[0] for p in prompts] == drawn
    assert (new_capture is None) or Repeating.captures


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures on a GPU")
@pytest.mark.parametrize("settings", [GREEDY, SETTINGS["penalised"]], ids=["greedy", "penalised"])
def test_a_gpu_gives_the_oracles_tokens(golden, settings):
    """Kernels, captured steps, alone and together, in float32."""
    model = HealthGPT.from_sources(golden.sources(), LoadOptions(device="cuda", dtype="FP32"))
    engine, vocabulary = model._engine, model._processor.image_vocabulary
    prompts = prompts_of(model, [golden.request(case) for case in golden.cases if case["task"] == "com"])
    expected = [until_stop(engine.oracle.generate([p], settings, 90)[0], engine.stop_ids) for p in prompts]
    for _ in range(2):
        assert engine.answer(prompts, settings, [90] * len(prompts)) == expected
        assert [engine.answer([prompt], settings, [90])[0] for prompt in prompts] == expected
    if golden.draws:
        count = model._vqgan.config.num_codes
        prompts = prompts_of(model, [golden.request(case) for case in golden.cases if case["task"] == "gen"])
        drawn = [engine.oracle.generate([p], settings, count, codes_of=vocabulary)[0] for p in prompts]
        for _ in range(2):
            assert engine.draw(prompts, settings, vocabulary, count) == drawn
            assert [engine.draw([p], settings, vocabulary, count)[0] for p in prompts] == drawn
    assert engine._steppers._kept


def test_steps_are_captured_once_and_the_least_used_are_forgotten(random_folder, monkeypatch):
    model = HealthGPT.from_pretrained(random_folder, device="cpu")
    decoder, made = model._engine._decoders[Task.COMPREHENSION], []

    def counting(work, rewind):
        made.append(work)
        rewind()
        return work

    monkeypatch.setattr("healthgpt.engine.stepping._GRAIN", 4)
    monkeypatch.setattr("healthgpt.engine.stepping._MOST_CAPTURES", 2)
    steppers = Steppers(lambda: counting)
    prompt = torch.randn(6, decoder.embeddings.shape[1])
    runs = []
    for _ in range(2):
        with torch.inference_mode():
            stepper = steppers.take(decoder, slice(None), 1, 60, 20)
            stepper.begin([0], [EmbeddedPrompt(shared=None, own=prompt)])
            for _ in range(11):  # of 7 ... 17 tokens: bounds 8, 12, 16, 20
                stepper.step()
        runs.append(stepper.ids[:, :12].tolist())
    assert runs[0] == runs[1]
    assert len(made) == 8
    assert list(stepper._captured) == [16, 20]
    assert steppers.take(decoder, slice(None), 1, 60, 20) is stepper
    assert steppers.take(decoder, slice(None), 1, 65, 20) is not stepper
    for sequences in (2, 3):
        steppers.take(decoder, slice(None), sequences, 60, 20)
    assert [kind[2] for kind in steppers._kept] == [2, 3]


def test_what_cannot_fit_is_refused_with_the_numbers(random_folder, monkeypatch):
    """And a worker goes on with smaller batches; steppers let go of what they keep."""
    model = HealthGPT.from_pretrained(random_folder, device="cpu")
    shape = model._engine._decoders[Task.COMPREHENSION].cache_shape
    requests = [Request(task=Task.COMPREHENSION, question="What is it?")] * 5
    plain = model.run_batch(requests, max_new_tokens=3)
    [prompt] = prompts_of(model, requests[:1])
    tokens = model._processor.expanded_length(prompt) + 3
    room = shape.bytes_of(2, tokens)
    monkeypatch.setattr("healthgpt.engine.cache.free_bytes", lambda device: room)
    monkeypatch.setattr("healthgpt.engine.memory.free_bytes", lambda device: room)
    with pytest.raises(
        MemoryError, match=r"out of memory: the keys and values of 5 sequences of \d+ tokens take .* free"
    ):
        model.run_batch(requests, max_new_tokens=3)
    worker = Worker(model, {"max_new_tokens": 3})
    assert [result.token_ids for result in worker.run(requests)] == [result.token_ids for result in plain]
    assert worker.most == 2
    # An answer may be as long as the context: only what it begins with has to fit.
    assert model._engine.answer([prompt], GREEDY, [10**6], watch=[lambda token: False]) == [plain[0].token_ids[:1]]
    room = 0
    with pytest.raises(MemoryError, match=r"and cpu has 0\.0 MiB free"):
        model.answer("What is it?", max_new_tokens=3)
    monkeypatch.undo()
    assert free_bytes(torch.device("cpu")) > 2**20
    steppers, decoder = Steppers(), model._engine._decoders[Task.COMPREHENSION]
    steppers.take(decoder, slice(None), 1, 10, 10)
    monkeypatch.setattr("healthgpt.engine.stepping.free_bytes", lambda device: shape.bytes_of(2, 10) - 1)
    steppers.make_room(decoder, 1, 10)
    assert steppers._kept
    steppers.make_room(decoder, 2, 10)
    assert not steppers._kept


class Told:
    """Stands first among `generate`'s processors, and tells of the logits of what may be chosen."""

    def __init__(self, margins: Margins, rows: slice):
        self._margins, self._rows = margins, rows

    def __call__(self, input_ids, scores):
        self._margins(scores[:, self._rows])
        return scores


@pytest.mark.parametrize("dtype", ["BF16", "FP16"])
def test_sixteen_bits_round_where_the_library_rounds(golden, dtype):
    """Greedy tokens are the oracle's with the attention that both can share, but where it is as good as undecided.

    Not every CPU adds up numbers of 16 bits in the same order in both. Networks with random weights magnify it: the
    logits of these are up to 40 roundings from those of 32 bits.
    """
    options = LoadOptions(device="cpu", dtype=dtype, attn_implementation="sdpa")
    model = HealthGPT.from_sources(golden.sources(), options)
    engine, vocabulary = model._engine, model._processor.image_vocabulary
    same = 0
    for case in golden.cases:
        [prompt] = prompts_of(model, [golden.request(case)])
        margins = Margins(torch.finfo(DTYPES[dtype]).eps)
        if case["task"] == "com":
            ids = engine.oracle.generate([prompt], GREEDY, 16, confidence=Told(margins, slice(None)))[0]
            expected, found = until_stop(ids, engine.stop_ids), engine.answer([prompt], GREEDY, [16])[0]
        else:
            codes = Told(margins, slice(vocabulary.first_code_id, vocabulary.end_id))
            expected = engine.oracle.generate([prompt], GREEDY, 16, codes_of=vocabulary, confidence=codes)[0]
            found = engine.draw([prompt], GREEDY, vocabulary, 16)[0]
        same += found == expected
        if found != expected:
            parted = next(place for place, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
            assert margins.of(0, parted) <= 8, f"step {parted} was decided"
    assert same >= len(golden.cases) / 2


@pytest.fixture(scope="module")
def nano() -> HealthGPT:
    return HealthGPT.from_pretrained("nano", device="cpu")


@pytest.mark.parametrize("settings", [GREEDY, SETTINGS["penalised"]], ids=["greedy", "penalised"])
@pytest.mark.parametrize("new_capture", [None, Repeating], ids=["looked at", "unseen"])
@pytest.mark.parametrize("alike", [False, True], ids=["different images", "same images"])
def test_texts_leave_and_join_while_others_go_on(nano, new_capture, settings, alike, monkeypatch):
    """More texts than places, of unequal prompts and lengths: each is what it is alone."""
    asked = ("Describe this image.", "What imaging modality is this?", "Is there a lesion? " * 9, "What organ is it?")
    images = [[], *([f"healthgpt/examples/{name}.png"] for name in ("brain_ct", "chest_xray", "fundus"))]
    if alike:  # of the same image many
        pairs = list(itertools.product(asked, images[:3]))
    else:
        pairs = [(question, []) for question in asked] + list(zip(asked, images[1:], strict=False))
    requests = [Request(task=Task.COMPREHENSION, question=question, images=image) for question, image in pairs]
    engine, prompts = nano._engine, prompts_of(nano, requests)
    alone, sure = [], []
    for prompt in prompts:
        confidence = FirstTokenConfidence()
        alone += engine.answer([prompt], settings, [40], confidence=confidence)
        sure.append(confidence.values[0])
    assert len({len(ids) for ids in alone}) > 2
    monkeypatch.setattr(engine, "_steppers", new_capture and Steppers(new_capture))
    monkeypatch.setattr("healthgpt.engine.stepping._GRAIN", 32)
    monkeypatch.setattr("healthgpt.engine.cohorts._ROOM", 2)
    together, embedded = [], engine._embedded
    monkeypatch.setattr(engine, "_embedded", lambda prompts: together.append(len(prompts)) or embedded(prompts))
    for places in (1, 3, 5, 11):
        together.clear()
        told = [[] for _ in prompts]
        watch = [lambda token, told=one: told.append(token) or True for one in told]
        confidence = FirstTokenConfidence()
        found = engine.answer(prompts, settings, [40] * len(prompts), places=places, watch=watch, confidence=confidence)
        assert found == told == alone
        if alike:  # so that each image is read once for those of a batch
            assert all(count == places for count in together[:-1])
        elif places == 3:
            assert any(count < places for count in together[:-1])
        torch.testing.assert_close(confidence.values, torch.stack(sure), rtol=1e-4, atol=1e-4)
        shorter = [1 + number % 9 for number in range(len(prompts))]
        cut = engine.answer(prompts, settings, shorter, places=places)
        assert cut == [ids[:most] for ids, most in zip(alone, shorter, strict=True)]
    texts = nano.run_batch(requests, batch_size=2, max_new_tokens=40, repetition_penalty=settings.repetition_penalty)
    assert [text.token_ids for text in texts] == alone
    beams = nano.run_batch(requests[:5], batch_size=2, max_new_tokens=9, num_beams=2)
    assert [one.text for one in beams] == [
        nano.run_batch([request], max_new_tokens=9, num_beams=2)[0].text for request in requests[:5]
    ]


@pytest.mark.parametrize("task", list(Task))
def test_what_prompts_begin_with_is_read_once(nano, task):
    engine, decoder = nano._engine, nano._engine._decoders[task]
    images = [f"healthgpt/examples/{name}.png" for name in ("brain_ct", "chest_xray")]
    asked = ("Reconstruct the image.", "Sharpen it.", "What is it? " * 5)
    requests = [
        Request(task=task, question=question, images=[image]) for question, image in itertools.product(asked, images)
    ]
    prompts = prompts_of(nano, requests)
    with torch.inference_mode():
        together = engine._embedded(prompts)
        assert len({id(prompt.shared) for prompt in together}) == 2
        cache, hidden = read_prompts(decoder, together, room=3)
        for row, prompt in enumerate(prompts):
            [alone] = engine._embedded([prompt])
            assert alone.shared is None
            torch.testing.assert_close(together[row].whole, alone.own)
            its_cache, its_hidden = read_prompts(decoder, [alone])
            torch.testing.assert_close(hidden[row], its_hidden[0], rtol=1e-3, atol=1e-4)
            for mine, its in ((cache.keys, its_cache.keys), (cache.values, its_cache.values)):
                torch.testing.assert_close(
                    mine[:, row, :, : len(alone)], its[:, 0, :, : len(alone)], rtol=1e-3, atol=1e-4
                )
    results = nano.run_batch(requests, batch_size=len(requests), max_new_tokens=30)
    for result, request in zip(results, requests, strict=True):
        assert result.token_ids == nano.run_batch([request], max_new_tokens=30)[0].token_ids


def test_prompts_that_begin_with_more_or_less_are_read_whole(nano):
    image = "healthgpt/examples/brain_ct.png"
    requests = [
        Request(task=Task.COMPREHENSION, question="What is it?", images=images, history=history)
        for images, history in (([image], ()), ([image], [("What is it?", "A CT.")]), ([image] * 2, ()), ([], ()))
    ]
    for some in (requests, requests[:3]):
        prompts = prompts_of(nano, some)
        with torch.inference_mode():
            wholes = [nano._engine._embedded([prompt])[0].whole for prompt in prompts]
            for found, whole in zip(nano._engine._embedded(prompts), wholes, strict=True):
                torch.testing.assert_close(found.whole, whole)
        for result, request in zip(nano.run_batch(some), some, strict=True):
            assert result.token_ids == nano.run_batch([request])[0].token_ids


def test_guesses_change_nothing_but_the_number_of_passes(nano):
    engine, vocabulary, count = nano._engine, nano._processor.image_vocabulary, nano._vqgan.config.num_codes
    image = "healthgpt/examples/brain_ct.png"
    [prompt] = prompts_of(nano, [Request(task=Task.GENERATION, question="Reconstruct the image.", images=[image])])
    decoder = engine._decoders[Task.GENERATION]
    with torch.inference_mode():
        [embedded] = engine._embedded([prompt])
        [plain] = draw_codes(decoder, Chooser(GREEDY, 1.0, 0, vocabulary), [embedded], vocabulary, count)
        columns = nano._vqgan.config.grid[1]
        truth = [token - vocabulary.first_code_id for token in plain]
        passes = {}
        for name, given in (
            ("truth", truth),
            ("input", codes_of(nano._vqgan, image).flatten().tolist()),
            ("none", None),
        ):
            seen: list[int] = []
            guesser = Guesser(given, columns)
            ids, tally = draw_codes_ahead(
                decoder, embedded, vocabulary, count, guesser, watch=lambda code, seen=seen: seen.append(int(code))
            )
            assert ids == plain
            assert seen == truth
            assert sum(tally.accepted) + tally.passes == count - 1
            passes[name] = tally.passes
    assert passes["truth"] < count / 4 < passes["input"] < count <= passes["none"] + 1


def test_requests_whose_guesses_are_seldom_right_are_drawn_plainly(nano, monkeypatch):
    hopes = Hopes()
    good, bad = Guesser(None, 8), Guesser(None, 8)
    (good.right, good.seen), (bad.right, bad.seen) = (40, 63), (3, 63)
    first = hopes.share("a")
    hopes.learn("a", good)
    hopes.learn("b", bad)
    assert first == hopes.share("c") == 0.5
    assert hopes.share("a") == pytest.approx((40 + 0.5 * 16) / (63 + 16))
    assert [hopes.share("b") for _ in range(17)] == [None] * 16 + [0.5]  # and is tried again
    hopes.learn("b", good)
    hopes.learn("b", good)
    assert hopes.share("b") > 0.5
    for number in range(300):
        hopes.learn(number, bad)
    assert len(hopes._known) == 256
    assert hopes.share("a") == 0.5  # forgotten

    image, asked = "healthgpt/examples/brain_ct.png", []
    monkeypatch.setattr(nano._engine, "_hopes", Hopes())
    monkeypatch.setattr("healthgpt.pipeline.codes_of", lambda *values: asked.append(1) or codes_of(*values))
    for question, times in (("Turn this CT into an MRI.", 1), ("Reconstruct the image.", 3)):
        drawn = [nano.draw(question, image, return_details=True).token_ids for _ in range(3)]
        assert drawn[0] == drawn[1] == drawn[2]
        assert len(asked) == times
        asked.clear()


@pytest.mark.parametrize("options", [{"dtype": "BF16"}, {"shortcuts": Shortcuts(int8_weights=True)}])
def test_nothing_is_guessed_where_several_codes_round_otherwise_than_one(options):
    model = HealthGPT.from_pretrained("nano", device="cpu", **options)
    request = Request(task=Task.GENERATION, question="Reconstruct the image.", images=["healthgpt/examples/fundus.png"])
    vocabulary, count = model._processor.image_vocabulary, model._vqgan.config.num_codes
    plain = model._engine.draw([model._prompt(request)], GREEDY, vocabulary, count)[0]
    assert model.run_batch([request])[0].token_ids[:-1] == plain


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_tokens_are_chosen_in_32_bits(settings):
    """Of the logits of 16 bits, as transformers does it."""
    logits = torch.randn(64, 4000, generator=torch.Generator().manual_seed(0)).mul(4).bfloat16()
    chooser = Chooser(settings, settings.repetition_penalty or 1.0, 0, None)
    chosen = []
    for given in (logits, logits.float()):
        memories = [chooser.memory() for _ in logits]
        for memory, best in zip(memories, logits.argmax(dim=-1).tolist(), strict=True):
            memory.tokens.append(best)
        chosen.append(chooser(given, memories))
    assert torch.equal(*chosen)


def test_every_guess_comes_from_where_it_says():
    guesser = Guesser(None, columns=3)
    guesser._record = {"above": 0.9, "before": 0.0}
    assert guesser.guess([1, 2, 3, 4], 4) == [2, 3, 4, 2]
    guesser._record = {"above": 0.0, "before": 0.9}
    assert guesser.guess([1, 2, 3, 4], 2) == [4, 4]
    guesser._record = {"above": 0.1, "before": 0.2}
    assert guesser.guess([1, 2], 4) == []
    mapped = Guesser([7, 7, 8, 7, 7, 8], columns=3)
    mapped.learn([1, 1, 2], 0)
    mapped._record = {"given": 0.9, "above": 0.0, "before": 0.0}
    assert mapped.guess([1, 1, 2], 3) == [1, 1, 2]


@pytest.mark.parametrize("adapter", ["hlora", "moelora", "lora"])
@pytest.mark.parametrize("into_one", [True, False])
@pytest.mark.parametrize("alpha", [64, 10])  # a scale that is a power of two, and one that is not
def test_fused_layers_are_the_layers(adapter, into_one, alpha):
    torch.manual_seed(0)
    body = torch.nn.ModuleDict(
        {name: torch.nn.Linear(24, width, bias=name != "c") for name, width in zip("abc", (8, 16, 5), strict=True)}
    )
    tasks = (Task.COMPREHENSION, Task.GENERATION)
    for task, rank in zip(tasks, (16, 32), strict=True):
        attach_adapter(body, task, HLoraConfig(r=rank, lora_alpha=alpha, adapter=adapter, target_modules=list("abc")))
    layers = list(body.values())
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(7, 24)
    with torch.inference_mode():
        expected = {}
        for task in tasks:
            layers[0].router.task = task
            expected[task] = torch.cat([layer(x) for layer in layers], dim=-1)
        fused = fuse(layers, tasks, into_one=into_one)
        for task in tasks:
            torch.testing.assert_close(fused[task](x), expected[task], rtol=1e-4, atol=1e-4)
            layers[0].router.task = task  # the layers themselves still are what they were
            torch.testing.assert_close(torch.cat([layer(x) for layer in layers], dim=-1), expected[task])
    if into_one:  # and there is one copy of W
        storages = {layer.base_layer.weight.untyped_storage().data_ptr() for layer in layers}
        assert storages == {fused[task].weights[0].untyped_storage().data_ptr() for task in tasks}
    else:  # and each W is where it was, as it may be mapped from a file
        own = [layer.base_layer.weight.data_ptr() for layer in layers]
        assert all([weight.data_ptr() for weight in fused[task].weights] == own for task in tasks)


@pytest.mark.parametrize("into_one", [True, False])
def test_in_16_bits_a_bias_is_rounded_with_its_product(into_one):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, width).bfloat16() for width in (32, 16, 16)]
    x = torch.randn(50, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected = torch.cat([layer(x) for layer in layers], dim=-1)
        made = fuse(layers, [Task.COMPREHENSION], into_one=into_one)[Task.COMPREHENSION]
        assert (made(x) != expected).float().mean() < 0.01


def test_the_routed_term_in_double_precision():
    generator = torch.Generator().manual_seed(1)
    for experts, rank, width, rows in ((1, 3, 5, 2), (4, 12, 7, 3), (32, 64, 33, 1), (2, 2, 4, 0)):
        low, gates, up, out = (
            torch.randn(*size, generator=generator, dtype=torch.float64)
            for size in ((rows, rank), (rows, experts), (width, rank), (rows, width))
        )
        wanted = out + sum(
            gates.softmax(dim=1)[:, i : i + 1] * (0.5 * low[:, part] @ up[:, part].T)
            for i, part in enumerate(slice(j, j + rank // experts) for j in range(0, rank, rank // experts))
        )
        add_routed(out, low, gates, up, 0.5)
        torch.testing.assert_close(out, wanted)


def test_a_window_hides_what_is_far_behind(random_folder):
    """A sliding window shorter than the prompt: the oracle's tokens still."""
    model = HealthGPT.from_pretrained(random_folder, device="cpu")
    config = model._network.config.text_config
    assert config.model_type == "phi3"
    config.sliding_window = 9
    engine = model._engine
    with torch.inference_mode():
        engine._decoders = decoders_of(model._network)
    assert engine._decoders[Task.COMPREHENSION].attention.window == 9
    prompts = prompts_of(model, [Request(task=Task.COMPREHENSION, question=text) for text in ("One? " * 8, "Two?")])
    alone = [until_stop(engine.oracle.generate([p], GREEDY, 12)[0], engine.stop_ids) for p in prompts]
    assert engine.answer(prompts, GREEDY, [12, 12]) == alone


def test_a_window_that_no_layer_has_is_none():
    """As of Qwen2 whose `max_window_layers` are all of them."""
    shared = {"sliding_window": 4, "use_sliding_window": True, "num_hidden_layers": 3}
    assert _window_of(Qwen2Config(**shared, max_window_layers=3)) is None
    assert _window_of(Qwen2Config(**shared, max_window_layers=0)) == 4
    with pytest.raises(UnsupportedError, match="only some of its layers"):
        _window_of(Qwen2Config(**shared, max_window_layers=1))


def test_what_the_engine_does_not_know_is_decoded_by_the_oracle(random_folder, caplog):
    model = HealthGPT.from_pretrained(random_folder, device="cpu")
    expected = model.answer("What is it?", max_new_tokens=6, return_details=True)
    model._network.model.language_model.config.rope_parameters["rope_type"] = "longrope"
    with pytest.raises(UnsupportedError, match="position encoding 'longrope'"):
        decoders_of(model._network)
    model._engine._decoders = None
    assert model.answer("What is it?", max_new_tokens=6, return_details=True) == expected
    assert "".join(model.stream("What is it?", max_new_tokens=6)) == expected.text


def test_logits_that_are_no_numbers_name_the_step(random_folder):
    model = HealthGPT.from_pretrained(random_folder, device="cpu")
    decoder = model._engine._decoders[Task.COMPREHENSION]
    with torch.inference_mode():
        decoder.embeddings[:] = torch.nan  # the prompt's included
    with pytest.raises(FloatingPointError, match="the logits of step 0 are NaN"):
        model.answer("What is it?", max_new_tokens=4)
    with pytest.raises(FloatingPointError, match="step 7 "):
        refuse_nan(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, torch.nan]]), 5)


def test_kernels_are_launched_on_the_device_of_what_they_read(random_folder, monkeypatch):
    """Triton launches on the current device, which may be another GPU."""
    decoder = HealthGPT.from_pretrained(random_folder, device="cpu")._engine._decoders[Task.COMPREHENSION]
    entered = []
    monkeypatch.setattr(decoder, "_small", None)
    monkeypatch.setattr(
        "healthgpt.engine.decoder.on_device", lambda device: entered.append(device) or contextlib.nullcontext()
    )
    with torch.inference_mode():
        rows = decoder.embed(torch.tensor([1, 2, 3]))
        read_prompts(decoder, [EmbeddedPrompt(shared=None, own=rows)])
    assert entered == [torch.device("cpu")]


def test_a_cache_grows_and_keeps_what_it_has():
    shape = CacheShape(num_layers=2, num_heads=3, head_width=4, dtype=torch.float32, device=torch.device("cpu"))
    cache = KeyValueCache(shape, 2, 60)
    assert cache.capacity == 64
    assert shape.bytes_of(2, 60) == cache.keys.nbytes + cache.values.nbytes
    cache.keys.normal_()
    before = cache.keys.clone()
    cache.grow(64)
    assert cache.capacity == 64
    cache.grow(65)
    assert cache.capacity == 128
    assert torch.equal(cache.keys[..., :64, :], before)
    assert not cache.keys[..., 64:, :].any()
