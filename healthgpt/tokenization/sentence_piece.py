"""Phi-3's tokenizer: SentencePiece as the slow `LlamaTokenizer` used it."""

from __future__ import annotations

from collections.abc import Sequence

from healthgpt.tokenization.settings import TokenizerSettings
from healthgpt.tokenization.slow import SlowTokenizer, Span

SPACE_PIECE = "▁"  # SentencePiece's visible space


class SentencePieceTokenizer(SlowTokenizer):
    """SentencePiece without its dummy prefix (`legacy` false, as Phi-3's) or with it (`legacy` true)."""

    def __init__(self, settings: TokenizerSettings):
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

        path = settings.folder / "tokenizer.model"
        proto = sentencepiece_model_pb2.ModelProto()
        try:
            proto.ParseFromString(path.read_bytes())
            if not settings.legacy:
                proto.normalizer_spec.add_dummy_prefix = False
            self._sp = SentencePieceProcessor(model_proto=proto.SerializeToString())
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file; a {settings.tokenizer_class} needs it") from None
        except Exception as error:  # protobuf and SentencePiece raise types of their own
            raise ValueError(f"{path}: not a SentencePiece model ({error})") from None
        self._vocabulary = {self._sp.id_to_piece(i): i for i in range(self._sp.get_piece_size())}
        super().__init__(settings)
        unknown = settings.roles.get("unk_token")
        self._unknown = "<unk>" if unknown is None else unknown
        self._unknown_length = len(self._sp.encode(self._unknown))

    def vocabulary(self) -> dict[str, int]:
        return self._vocabulary

    def opening(self) -> str:
        return SPACE_PIECE if not self.settings.legacy and self.settings.add_prefix_space else ""

    def encode(self, spans: Sequence[Span], *, opens: bool = True) -> list[int]:
        if not self.settings.legacy:
            spans = [span._replace(text=span.text.replace(SPACE_PIECE, " ")) for span in spans]
        return super().encode(spans, opens=opens)

    def encode_segment(self, text: str) -> list[int]:
        if self.settings.legacy or not text.startswith((SPACE_PIECE, " ")):
            return self._sp.encode(text)
        # SentencePiece strips leading spaces, so something that is no space has to stand before them.
        return self._sp.encode(self._unknown + text)[self._unknown_length :]

    def _without_lone_opening(self, ids: list[int]) -> list[int]:
        """The opening `▁` goes where a special token follows it at once."""
        lone = self._vocabulary.get(SPACE_PIECE)
        starts_special = len(ids) > 1 and ids[0] == lone and ids[1] in self.special_ids
        return ids[1:] if starts_special and not self.settings.legacy else ids

    def segment_text(self, ids: list[int]) -> str:
        pieces = [self._sp.id_to_piece(i) for i in ids]
        if self.settings.add_prefix_space:
            pieces[0] = pieces[0].removeprefix(SPACE_PIECE)
        return self._sp.decode(pieces)
