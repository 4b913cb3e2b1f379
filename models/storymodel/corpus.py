"""Stories to tokens: trains the byte-level BPE and packs deduplicated stories into rows that each begin with BOS."""

import hashlib
import multiprocessing
import os

import numpy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from storyworld.generate import make_stories
from storyworld.grammar import Grammar

BOS, EOS = "<|bos|>", "<|eos|>"
CHUNK = 2000  # stories per task


def train_tokenizer(stories, vocab_size, path):
    """Byte-level BPE over all 256 bytes, so every text round-trips; BOS is put in front of each encoded text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(stories, trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    tokenizer.save(str(path))
    return tokenizer


_state = {}


def _prepare(tokenizer_path):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _state["grammar"] = Grammar()
    if tokenizer_path:
        _state["tokenizer"] = Tokenizer.from_file(tokenizer_path)


def _texts(task):
    return make_stories(*task, grammar=_state["grammar"])


def _tokens(task):
    """(tokens uint16 with BOS and EOS, length of each story, 64-bit hash of each story)"""
    tokenizer = _state["tokenizer"]
    eos = tokenizer.token_to_id(EOS)
    stories = make_stories(*task, grammar=_state["grammar"])
    encoded = [e.ids + [eos] for e in tokenizer.encode_batch(stories)]
    hashes = [int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest(), "little") for s in stories]
    flat = numpy.fromiter((t for ids in encoded for t in ids), numpy.uint16)
    return flat, numpy.array([len(ids) for ids in encoded], numpy.int64), numpy.array(hashes, numpy.uint64)


def _tasks(seed, count):
    return [(seed, start, min(CHUNK, count - start)) for start in range(0, count, CHUNK)]


def texts(seed, count, processes):
    with multiprocessing.Pool(processes, _prepare, (None,)) as pool:
        return [s for chunk in pool.map(_texts, _tasks(seed, count), 1) for s in chunk]


class Corpus:
    """Tokens of distinct stories, in the order of their numbers."""

    def __init__(self, seed, count, tokenizer_path, processes, unseen_in=None):
        with multiprocessing.Pool(processes, _prepare, (str(tokenizer_path),)) as pool:
            parts = pool.map(_tokens, _tasks(seed, count), 1)
        tokens, lengths, hashes = (numpy.concatenate(column) for column in zip(*parts))
        keep = numpy.zeros(len(hashes), bool)
        keep[numpy.unique(hashes, return_index=True)[1]] = True
        if unseen_in is not None:
            keep &= ~numpy.isin(hashes, unseen_in.hashes)
        self.made = count
        self.tokens, self.lengths, self.hashes = tokens[numpy.repeat(keep, lengths)], lengths[keep], hashes[keep]

    def rows(self, width):
        """[n, width] uint16: each row begins with a story; the story cut off at its end begins the next row."""
        ends = numpy.cumsum(self.lengths)
        starts, at = [], 0
        while at + width <= len(self.tokens):
            starts.append(at)
            at = int(ends[numpy.searchsorted(ends, at + width, side="right") - 1])
            if at <= starts[-1]:
                raise ValueError(f"a story is longer than a row of {width} tokens")
        return numpy.stack([self.tokens[s:s + width] for s in starts])
