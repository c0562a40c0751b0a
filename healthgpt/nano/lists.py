"""Lists of words, and questions whether a word is among them: from these the nano base LLM learns to compare.

A question of yes or no about an image is such a comparison. Questions about captions alone teach it too, but slowly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from healthgpt.nano.chats import Chat

_LONGEST, _ASKED = 16, 5  # words of a list; questions with each answer, at most
_SHORTEST_WORD = 3  # letters
_FORMS = ("{}?", "Is there {}?", "Is {} among them?", "Does it show {}?", "Is it {}?", "Is the {} there?")


def words_of(texts: Iterable[str]) -> list[str]:
    """The different words of texts."""
    words = {word.strip("?.,:") for text in texts for word in text.split()}
    return sorted(word for word in words if len(word) >= _SHORTEST_WORD)


def listed(words: list[str], count: int) -> Iterator[Chat]:
    """Chats about random lists of the words; half of the answers are yes."""
    random = np.random.default_rng(0)
    for _ in range(count):
        length = min(int(random.integers(2, _LONGEST + 1)), len(words) // 2)
        shuffled = [words[i] for i in random.permutation(len(words))]
        there, asked = shuffled[:length], min(length, _ASKED)
        questions = [shuffled[i] for i in random.permutation(length)[:asked]] + shuffled[length : length + asked]
        turns = []
        for i in random.permutation(len(questions)):
            form = _FORMS[int(random.integers(len(_FORMS)))]
            turns += [form.format(questions[i]), "Yes" if questions[i] in there else "No"]
        yield Chat(turns=(f"{' '.join(there)}\n{turns[0]}", *turns[1:]))
