"""One story's state: cast, flags, slots, and the sentences told so far."""

from . import lexicon as lex
from .entities import Character, Place, Thing, article
from .grammar import polish

_LOVES = ["loved to explore", "loved to watch the clouds", "loved stories", "loved to sing", "loved quiet mornings", "loved the smell of rain",
          "liked to collect round stones", "loved to count the stars", "liked to sit by the window and dream", "loved a good adventure"]
_DOES = ["took a long walk", "sang a little song before breakfast", "said good morning to the birds", "looked for something new to discover",
         "went down to the water to see the fish", "helped whoever needed help", "asked a hundred questions"]
_WHO = [" who {}"] * 3 + [", who {}"]


class Story:
    def __init__(self, rng, grammar):
        self.rng, self.grammar = rng, grammar
        self.env, self.flags, self.cast, self.used = {}, set(), [], set()
        self.sentence, self.out = 0, []
        self.nouns = set()

    # Telling.
    def tell(self, *rules):
        for rule in rules:
            self.grammar.expand(rule, self, self.out)
            self.out.append(" ")

    def maybe(self, chance, *rules):
        if self.rng.random() < chance:
            self.tell(*rules)

    def text(self):
        return polish("".join(self.out))

    def pick(self, options):
        return self.rng.choice(options.split("|") if isinstance(options, str) else options)

    def set(self, **slots):
        self.env.update(slots)

    # Casting.
    def cast_as(self, key, character):
        self.env[key] = character
        self.cast.append(character)
        self.nouns.add(character.noun)
        return character

    def _pronoun(self):
        """Prefers a pronoun nobody in the cast has yet, so that pronouns stay clear."""
        taken = {c.pronoun for c in self.cast}
        free = [p for p in ("he", "she") if p not in taken]
        return self.rng.choice(free) if free and self.rng.random() < 0.8 else self.rng.choice(("he", "she"))

    def _name(self, pool):
        while True:
            name = self.rng.choice(pool)
            if all(c.name != name for c in self.cast):
                return name

    def child(self, key):
        pronoun = self._pronoun()
        noun = self.pick("boy|boy|little boy" if pronoun == "he" else "girl|girl|little girl")
        adjective = self.pick([a for a in lex.CHILD_ADJ if a not in ("little", "small", "young") or noun in ("boy", "girl")])
        return self.cast_as(key, Character(self._name(lex.HE if pronoun == "he" else lex.SHE), noun.split()[-1], pronoun,
                                           adjective + (" little" if " " in noun else "")))

    def adult(self, key):
        pronoun = self._pronoun()
        noun = self.pick([t for t, _ in lex.TRADES if t not in self.nouns and t not in ("fisherman", "lighthouse keeper")])
        return self.cast_as(key, Character(self._name(lex.HE if pronoun == "he" else lex.SHE), noun, pronoun, self.pick(lex.ADULT_ADJ)))

    def animal(self, key, without=(), among=None):
        pronoun = self._pronoun()
        nouns = [n for n, a in lex.ANIMALS.items() if n not in self.nouns and not set(without) & set(a[1].split()) and (not among or n in among)]
        noun = self.pick(nouns)
        adjectives, abilities, hands, _ = lex.ANIMALS[noun]
        return self.cast_as(key, Character(self._name(lex.PET_HE if pronoun == "he" else lex.PET_SHE), noun, pronoun, self.pick(adjectives), abilities.split(), hands))

    def hero(self, kinds="child animal adult", without=()):
        """Casts h, sets the region, home, season and weather, and the flags that lines ask for."""
        kind = self.pick(kinds.split())
        self.flags.add(kind)
        if kind == "child":
            h = self.child("h")
        elif kind == "adult":
            h = self.adult("h")
        else:
            h = self.animal("h", without)
        self.region = self.pick(["forest", "forest", "farm", "hill"] if kind == "animal" else list(lex.HOMES))
        if kind == "animal":
            home = self.pick(lex.ANIMAL_HOMES[lex.ANIMALS[h.noun][3]])
            if lex.ANIMALS[h.noun][3] == "farm":
                self.region = "farm"
        else:
            home = self.pick(lex.HOMES[self.region])
        self.season = self.pick(lex.SEASONS)
        self.flags.add(self.season)
        daytime = self.pick("morning|afternoon|day|evening" if kind != "child" else "morning|afternoon|day")
        habit = self.pick(_LOVES)
        who = self.pick(_WHO).format(habit) if self.rng.random() < 0.6 else ""
        self.set(loves=self.pick([l for l in _LOVES if l != habit]), hands=h.hands, home=home, season=self.season, weather=self.pick(lex.WEATHER[self.season]), daytime=daytime, habit=habit, who=who,
                 does=self.pick(_DOES), food=self.pick(lex.FOODS), steps=self.pick("twenty|thirty|forty|fifty|a hundred"))
        self.places()
        return h

    def places(self):
        chosen = self.rng.sample(lex.PLACES[self.region], 4)
        for i, (name, at) in enumerate(chosen, 1):
            self.env[f"p{i}"] = Place(name, at)
        self.set(place=chosen[0][1], place2=chosen[3][1])

    def friend(self, key="f"):
        self.flags.add("friends")
        if "animal" in self.flags:
            return self.animal(key)
        return self.adult(key) if "adult" in self.flags else self.child(key)

    def kin(self, animals="mother|father|grandmother|grandfather|old aunt"):
        """A relation of the hero, without a name among animals."""
        if "animal" in self.flags:
            word = self.pick(animals)
            title = ("his " if self.env["h"].pronoun == "he" else "her ") + word
            pronoun = "he" if word.split()[-1] in ("father", "grandfather", "uncle") else "she"
        else:
            title, pronoun = self.pick(lex.KIN)
        return self.cast_as("kin", Character(None, "relation", pronoun, title=title))

    def helper(self, ability=None, key="k"):
        """A helper who can do `ability`; people help people unless this world's animals talk."""
        talking = "animal" in self.flags or ("child" in self.flags and self.rng.random() < 0.5 and ability)
        self.flags.add("helped")
        if talking:
            options = [o for a, os in lex.HELPERS.items() if ability is None or a in ability.split() for o in os if o[1] not in self.nouns]
            adjectives, noun = self.pick(options)
            return self.cast_as(key, Character(None, noun, self._pronoun(), self.pick(adjectives), hands="paws"))
        self.flags.add("person")
        title, pronoun = self.pick([n for n in lex.NEIGHBORS if all(c.title != n[0] for c in self.cast)])
        return self.cast_as(key, Character(None, "neighbor", pronoun, title=title))

    def ability_of(self, noun, wanted):
        """Which of the wanted abilities an animal helper noun has."""
        return self.pick([a for a in wanted.split() for _, n in lex.HELPERS[a] if n == noun])

    # Things.
    def thing(self, *tags, key="x", exclude=()):
        fits = [t for t in lex.THINGS if set(tags) <= set(t[2].split()) and t[0] not in exclude
                and not ("animal" in self.flags and t[0] in ("letter", "locket"))]
        noun, adjectives, tag_words = self.pick(fits)
        self.env[key] = Thing(noun, self.pick(adjectives), tag_words.split())
        return self.env[key]

    def stranger(self, key):
        """An unnamed passer-by."""
        pronoun = self._pronoun()
        noun = self.pick([t for t, _ in lex.TRADES if t not in self.nouns and t not in ("lighthouse keeper", "fisherman")])
        return self.cast_as(key, Character(None, noun, pronoun, self.pick("old|young|friendly|busy|worried|cheerful")))


__all__ = ["Story", "article"]
