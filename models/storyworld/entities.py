"""Characters, things and places of a story, and how a mention of each is worded."""

PRONOUNS = {
    "he": dict(S="he", O="him", P="his", r="himself"),
    "she": dict(S="she", O="her", P="her", r="herself"),
}


def article(words):
    return ("an " if words[0].lower() in "aeiou" else "a ") + words


def owner(name):
    return name + "'s"


class Character:
    """A living being. `name` may be None: then it is "the owl" after its first mention."""

    def __init__(self, name, noun, pronoun, adjective="", abilities=(), hands="hands", title=None):
        self.name, self.noun, self.pronoun, self.adjective = name, noun, pronoun, adjective
        self.abilities, self.hands = frozenset(abilities), hands
        self.title = title  # a name that describes already, as in "Grandma Rose"
        self.seen = -9      # the sentence of the last mention
        self.known = False

    def described(self):
        return article(f"{self.adjective} {self.noun}".strip())

    def _label(self, story):
        if self.title:
            return self.title
        if self.name is None:
            return "the " + self.noun
        plain = all(c is self or c.noun != self.noun for c in story.cast)
        if plain and self.known and self is not story.env.get("h") and story.rng.random() < 0.2:
            return "the " + self.noun
        return self.name

    def _clear(self, story):
        """Whether a pronoun can only mean this character here."""
        if self.seen < story.sentence - 1:
            return False
        return all(c is self or c.pronoun != self.pronoun or c.seen < story.sentence - 1 for c in story.cast)

    def mention(self, form, story):
        """Forms: '' subject, o object, p possessive (pronoun where clear); S O P r pronoun; n name; i introduction; d described; f described without its article; k noun."""
        words = PRONOUNS[self.pronoun]
        clear = self._clear(story)
        fresh = self.seen == story.sentence
        if form in ("k", "hands"):
            return self.noun if form == "k" else self.hands
        self.seen = story.sentence
        if form in words:
            return words[form]
        if form == "i" and self.known:
            return self.title or self.name or "the " + self.noun
        if form == "i":
            self.known = True
            if self.title:
                return self.title
            if self.name is None:
                return self.described()
            return f"{self.described()} {story.rng.choice(('named', 'named', 'called'))} {self.name}"
        if form == "d":
            return self.described()
        if form == "f":
            return f"{self.adjective} {self.noun}".strip()
        if form == "n":
            return self.name or self.title or "the " + self.noun
        if clear and (fresh or story.rng.random() < 0.8):
            return {"": words["S"], "o": words["O"], "p": words["P"]}[form]
        if self.name is None and not self.title and not self.known:
            self.known = True
            label = self.described()
        else:
            label = self._label(story)
        return owner(label) if form == "p" else label


class Thing:
    """An object. Forms: '' the (red) kite; a "a red kite"; f "red kite"; n "kite"; my "red kite" once, then "kite"."""

    def __init__(self, noun, adjective="", tags=()):
        self.noun, self.adjective, self.tags = noun, adjective, frozenset(tags)
        self.known = False

    def full(self):
        return f"{self.adjective} {self.noun}".strip()

    def mention(self, form, story):
        known, self.known = self.known, True
        if form == "a":
            return article(self.full())
        if form == "f":
            return self.full()
        if form == "n":
            return self.noun
        short = self.noun if known and story.rng.random() < 0.85 else self.full()
        return short if form == "my" else "the " + short


class Place:
    """A place. Forms: '' its name; at "by the mill"; to "to the mill"."""

    def __init__(self, name, at):
        self.name, self.at_words = name, at

    def mention(self, form, story):
        return {"": self.name, "at": self.at_words, "to": "to " + self.name}[form]
