"""Writes story number n of a seed: the same n and seed always give the same story."""

import random

from . import plots
from .grammar import Grammar
from .story import Story

MIN_WORDS, MAX_WORDS = 70, 150


def make_story(grammar, seed, number):
    """One story as plain text, 70 to 150 words."""
    rng = random.Random(f"{seed}:{number}")
    while True:
        story = Story(rng, grammar)
        if rng.choice(plots.FAMILIES)(story) is False:
            continue
        text = story.text()
        if MIN_WORDS <= text.count(" ") + 1 <= MAX_WORDS:
            return text


def make_stories(seed, start, count, grammar=None):
    grammar = grammar or Grammar()
    return [make_story(grammar, seed, n) for n in range(start, start + count)]


if __name__ == "__main__":
    import sys

    seed, start, count = (int(a) for a in sys.argv[1:4])
    for text in make_stories(seed, start, count):
        print(text + "\n")
