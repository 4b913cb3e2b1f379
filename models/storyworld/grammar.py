"""The phrase grammar: rules read from text files and expanded against one story's world state.

A file holds rules. `@name` opens a rule, each later line is one way to say it:

    %winter !animal: text     only when the flag `winter` is set and `animal` is not
    [a|b|]                    one of these, nested at will
    <rule>                    another rule
    {h} {h:o} {h:P} {x:a}     a mention of a world entity in a form (see entities.py), or a text slot
    a~ word                   "a" or "an"
    ^                         the next letter is a capital
"""

import pathlib
import re

_SENTENCE_END = re.compile(r'[.!?](?=["\s]|$)')


class _Choice:
    __slots__ = ("options",)

    def __init__(self, options):
        self.options = options


class _Ref:
    __slots__ = ("key", "form")

    def __init__(self, text):
        self.key, _, self.form = text.partition(":")


class _Rule:
    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name


class _Literal:
    __slots__ = ("text", "sentence_ends")

    def __init__(self, text):
        self.text = text
        self.sentence_ends = len(_SENTENCE_END.findall(text))


def _parse(text, at=0, closing=False):
    """Parses from `at`; inside brackets also stops at '|' or ']'. Returns (nodes, position)."""
    nodes, literal = [], []

    def flush():
        if literal:
            nodes.append(_Literal("".join(literal)))
            literal.clear()

    while at < len(text):
        c = text[at]
        if closing and c in "|]":
            break
        if c == "[":
            flush()
            options = []
            while True:
                option, at = _parse(text, at + 1, True)
                options.append(option)
                if at >= len(text):
                    raise ValueError(f"unclosed [ in: {text}")
                if text[at] == "]":
                    break
            nodes.append(_Choice(options))
        elif c in "{<":
            flush()
            end = text.index("}" if c == "{" else ">", at)
            inner = text[at + 1:end]
            nodes.append(_Ref(inner) if c == "{" else _Rule(inner))
            at = end
        else:
            if c == "]":
                raise ValueError(f"stray ] in: {text}")
            literal.append(c)
        at += 1
    flush()
    return nodes, at


class Grammar:
    """All rules of the grammar folder: name -> list of (needed flags, forbidden flags, nodes)."""

    def __init__(self, folder=pathlib.Path(__file__).parent / "grammar"):
        self.rules = {}
        for path in sorted(folder.glob("*.txt")):
            self._read(path)
        for name, lines in self.rules.items():
            for _, _, nodes in lines:
                self._check(name, nodes)

    def _read(self, path):
        current = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("@"):
                if line[1:] in self.rules:
                    raise ValueError(f"{path.name}:{number}: rule {line[1:]} stands twice")
                current = self.rules.setdefault(line[1:], [])
                continue
            need, forbid = frozenset(), frozenset()
            if line.startswith("%"):
                flags, line = line[1:].split(":", 1)
                need = frozenset(f for f in flags.split() if f[0] != "!")
                forbid = frozenset(f[1:] for f in flags.split() if f[0] == "!")
            current.append((need, forbid, _parse(line.strip())[0]))

    def _check(self, rule, nodes):
        for node in nodes:
            if isinstance(node, _Rule) and node.name not in self.rules:
                raise ValueError(f"rule {rule} names unknown rule {node.name}")
            if isinstance(node, _Choice):
                for option in node.options:
                    self._check(rule, option)

    def expand(self, name, story, out):
        """Appends one way of saying rule `name` to `out`; avoids ways this story has used already."""
        fits = [i for i, (need, forbid, _) in enumerate(self.rules[name])
                if need <= story.flags and not forbid & story.flags]
        if not fits:
            raise LookupError(f"rule {name} has no line for flags {sorted(story.flags)}")
        fresh = [i for i in fits if (name, i) not in story.used] or fits
        pick = story.rng.choice(fresh)
        story.used.add((name, pick))
        self._nodes(self.rules[name][pick][2], story, out)

    def _nodes(self, nodes, story, out):
        for node in nodes:
            kind = type(node)
            if kind is _Literal:
                out.append(node.text)
                story.sentence += node.sentence_ends
            elif kind is _Choice:
                self._nodes(story.rng.choice(node.options), story, out)
            elif kind is _Ref:
                value = story.env[node.key]
                out.append(value if isinstance(value, str) else value.mention(node.form, story))
            else:
                self.expand(node.name, story, out)


_ARTICLE = re.compile(r"\b([Aa])~ (?=(\w))")
_AFTER_STOP = re.compile(r'([.!?] "?|\." |\^)([a-z])')


def polish(text):
    """Spaces, articles and capitals of a raw expansion."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.!?;:])", r"\1", text)
    text = _ARTICLE.sub(lambda m: m[1] + ("n " if m[2].lower() in "aeiou" else " "), text)
    text = _AFTER_STOP.sub(lambda m: m[1].rstrip("^") + m[2].upper(), text).replace("^", "")
    text = re.sub(r'^("?)([a-z])', lambda m: m[1] + m[2].upper(), text)
    return text
