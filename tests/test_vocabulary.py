"""Image tokens: ids, arithmetic, the mask, the mean rows."""

import json

import pytest
import torch
from conftest import GOLDEN
from torch import nn

from healthgpt.tokenization import load_tokenizer
from healthgpt.vocabulary import ImageVocabulary, OnlyImageCodes, extended_with_mean, with_rows


@pytest.mark.parametrize("family", ["m3", "l14"])
def test_ids_are_the_originals(family):
    meta = json.loads((GOLDEN / family / "cases.json").read_text())["meta"]
    tokenizer = load_tokenizer(GOLDEN / family / "base")
    vocabulary = ImageVocabulary(start_id=len(tokenizer), num_codes=meta["vq_idx_nums"])
    tokenizer.add_special_tokens(vocabulary.tokens())
    for name, token_id in meta["special_ids"].items():
        assert tokenizer.added[name].id == token_id
    assert vocabulary.start_id == meta["special_ids"]["<start_index>"]
    assert vocabulary.end_id == meta["special_ids"]["<end_index>"]
    assert vocabulary.num_rows == meta["len_tokenizer"] == len(tokenizer)


def test_the_released_m3_vocabulary_has_its_40206_rows():
    vocabulary = ImageVocabulary(start_id=32011, num_codes=8192)
    assert (vocabulary.first_code_id, vocabulary.end_id, vocabulary.num_rows) == (32012, 40204, 40206)


def test_indices_come_from_ids_by_arithmetic():
    vocabulary = ImageVocabulary(start_id=100, num_codes=8)
    assert vocabulary.indices([3, 100, 101, 108, 109, 110]) == [0, 7]


def test_only_codes_can_be_chosen():
    vocabulary = ImageVocabulary(start_id=4, num_codes=3)
    scores = torch.randn(2, vocabulary.num_rows)
    masked = OnlyImageCodes(vocabulary)(torch.zeros(2, 1), scores)
    assert torch.equal(masked[:, 5:8], scores[:, 5:8])
    assert torch.isneginf(masked[:, :5]).all()
    assert torch.isneginf(masked[:, 8:]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_new_rows_are_the_mean_of_the_tokenizers_rows(dtype):
    weight = torch.randn(12, 4, dtype=dtype)  # 10 tokens and 2 rows of padding, which are overwritten
    extended = extended_with_mean(weight, ImageVocabulary(start_id=10, num_codes=5))
    assert extended.shape == (18, 4)
    assert torch.equal(extended[:10], weight[:10])
    assert torch.equal(extended[10:], weight[:10].mean(dim=0, keepdim=True).expand(8, 4))


def test_layers_of_other_rows_share_the_given_weight():
    weight = torch.randn(7, 4)
    for layer in (nn.Embedding(3, 4), nn.Linear(4, 3, bias=False)):
        fresh = with_rows(layer, weight)
        assert type(fresh) is type(layer)
        assert fresh.weight.data_ptr() == weight.data_ptr()
    assert torch.equal(with_rows(nn.Linear(4, 3, bias=False), weight)(torch.eye(4)), weight.T)
