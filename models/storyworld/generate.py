"""Writes story number n of a seed: the same n and seed always give the same story."""

import random
import re

from . import plots
from .grammar import Grammar
from .story import Story

MIN_WORDS, MAX_WORDS = 70, 150
LATE_START = 0.04  # so that a model also learns to go on from texts that are no opening
_SENTENCE_BREAK = re.compile(r"(?<!Mr\.)(?<!Mrs\.)(?<=[.!?]) (?=[A-Z])")


def _from_the_middle(text, rng):
    """`text` without its first sentences; the whole text where that would tear a quotation apart."""
    breaks = [m.end() for m in _SENTENCE_BREAK.finditer(text)]
    rest = text[rng.choice(breaks[:len(breaks) // 2 + 1]):]
    return rest if rest.count('"') % 2 == 0 else text


def make_story(grammar, seed, number):
    """One story as plain text: 70 to 150 words, or the later part of such a story."""
    rng = random.Random(f"{seed}:{number}")
    family = rng.choice(plots.FAMILIES)  # chosen once: a family that often has to start over is not told less
    while True:
        story = Story(rng, grammar)
        if family(story) is False:
            continue
        text = story.text()
        if MIN_WORDS <= text.count(" ") + 1 <= MAX_WORDS:
            return _from_the_middle(text, rng) if rng.random() < LATE_START else text


def make_stories(seed, start, count, grammar=None):
    grammar = grammar or Grammar()
    return [make_story(grammar, seed, n) for n in range(start, start + count)]


if __name__ == "__main__":
    import sys

    for text in make_stories(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])):
        print(text + "\n")
