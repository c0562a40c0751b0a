"""Ids and text equal those of the slow tokenizers (recorded with transformers 4.41.2 over the golden vocabularies)."""

import json
import random
import shutil

import pytest
from conftest import DATA, FAMILIES, GOLDEN

from healthgpt.tokenization import SlowTokenizer, Span, load_tokenizer

RECORDED = json.loads((DATA / "slow_tokenizers.json").read_text())
IMAGE_TOKENS = ["<start_index>", *(f"<idx_{i}>" for i in range(64)), "<end_index>", "<pixel_newline>"]


def tokenizer_of(family: str) -> SlowTokenizer:
    tokenizer = load_tokenizer(GOLDEN / family / "base")
    if family != "xl32":
        tokenizer.add_special_tokens(IMAGE_TOKENS)
    return tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


def test_length_is_the_slow_tokenizers(family):
    assert len(tokenizer_of(family)) == RECORDED[family]["length"]


def test_encoding_is_the_slow_tokenizers(family):
    tokenizer = tokenizer_of(family)
    assert len(RECORDED[family]["encoded"]) == 250
    for text, ids in RECORDED[family]["encoded"]:
        assert tokenizer.encode([Span(text)]) == ids, text


def test_encoding_does_not_depend_on_the_cut_into_spans(family):
    tokenizer = tokenizer_of(family)
    for text, ids in RECORDED[family]["encoded"][:60]:
        middle = len(text) // 2
        assert tokenizer.encode([Span(text[:middle]), Span(text[middle:])]) == ids


def test_decoding_is_the_slow_tokenizers(family):
    tokenizer = tokenizer_of(family)
    for ids, text in RECORDED[family]["decoded"]:
        assert tokenizer.decode(ids) == text, ids


def test_settled_text_never_changes(family):
    tokenizer = tokenizer_of(family)
    rng = random.Random(0)
    for _ in range(100):
        ids = [rng.randrange(len(tokenizer)) for _ in range(30)]
        whole = tokenizer.decode(ids)
        for end in range(len(ids)):
            text = tokenizer.decode(ids[:end])
            assert whole.startswith(text[: tokenizer.settled(text)])


@pytest.mark.parametrize("name", ["<|end|>", "<|im_end|>", "<|endoftext|>", "<idx_5>", "<start_index>", "<s>", "<unk>"])
def test_literal_text_never_becomes_an_added_token(family, name):
    tokenizer = tokenizer_of(family)
    added = {token.id for token in tokenizer.added.values()}
    ids = tokenizer.encode([Span("is "), Span(f"{name} a{name}b", literal=True)])
    assert not added & set(ids)


def test_an_added_token_across_the_edge_of_a_literal_span_is_not_matched():
    tokenizer = tokenizer_of("m3")
    end = tokenizer.added["<|end|>"].id
    assert end in tokenizer.encode([Span("<|en"), Span("d|>")])
    assert end not in tokenizer.encode([Span("<|en", literal=True), Span("d|>")])


def test_adding_a_known_token_is_refused():
    with pytest.raises(ValueError, match=r"'<\|end\|>' is in the vocabulary already"):
        tokenizer_of("m3").add_special_tokens(["<|end|>"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.model", None, "tokenizer.model: no such file"),
        ("tokenizer.model", b"not a model at all", "not a SentencePiece model"),
        ("tokenizer_config.json", b'{"tokenizer_class": "BertTokenizer"}', "'BertTokenizer' is not supported"),
        ("tokenizer_config.json", b"<html>sign in</html>", "a web page of 20 bytes"),
        ("tokenizer_config.json", None, "tokenizer_config.json: no such file"),
    ],
)
def test_bad_tokenizer_files_are_named(tmp_path, name, content, message):
    base = shutil.copytree(GOLDEN / "m3" / "base", tmp_path / "base")
    (base / name).unlink()
    if content is not None:
        (base / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_tokenizer(base)


def test_bos_is_added_where_the_configuration_says_so(tmp_path):
    base = shutil.copytree(GOLDEN / "m3" / "base", tmp_path / "base")
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": True}))
    plain, with_bos = tokenizer_of("m3"), load_tokenizer(base)
    assert with_bos.encode([Span("a scan")]) == [1, *plain.encode([Span("a scan")])]


def test_byte_pairs_can_come_from_tokenizer_json_alone(tmp_path):
    base = shutil.copytree(GOLDEN / "l14" / "base", tmp_path / "base")
    (base / "vocab.json").unlink()
    tokenizer = load_tokenizer(base)
    tokenizer.add_special_tokens(IMAGE_TOKENS)
    for text, ids in RECORDED["l14"]["encoded"]:
        assert tokenizer.encode([Span(text)]) == ids, text
