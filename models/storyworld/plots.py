"""The plot families. Each decides what happens in the world and in which order it is told."""

from . import lexicon as lex
from .entities import Character, Thing
from .plot_words import (BAD, BUILDS, FEARS, GARDENS, GOOD_WISHES, ITEMS, LAMPS, MAGIC, MYSTERIES, RETRACE, SKILLS, TRADES, TREASURES, TRICKS, TROUBLES,
                         WILDS)


def _open(s, habit=0.3):
    s.maybe(0.1, "lead")
    if s.rng.random() < 0.12:
        s.tell("open.day")
        s.flags.add("begun")
    else:
        s.tell("open")
    if not s.env["who"]:
        s.maybe(habit, "habit.line")


def lost_and_stuck(s):
    h = s.hero()
    s.kin()
    x = s.thing(s.pick("wind roll slip shiny".split()), exclude=("vase", "teapot"))
    how = s.pick([c for c in ("wind", "roll", "slip", "magpie") if (c in x.tags or (c == "magpie" and "shiny" in x.tags and "slip" in x.tags))] or ["wind"])
    if how == "wind" and "wind" not in x.tags:
        how = "slip"
    kinds = {"wind": ["high"], "magpie": ["high"], "roll": ["deep", "hole"], "slip": ["deep", "hole"]}[how]
    blocked = {"high": {"fly", "climb"}, "deep": {"swim"}, "hole": {"dig", "strong"}}
    kinds = [k for k in kinds if not blocked[k] & h.abilities]
    if not kinds:
        return False
    kind = s.pick(kinds)
    where, reach = s.pick(lex.STUCK[kind])
    if "winter" in s.flags and kind == "deep":
        return False
    s.set(where=where, tool=s.pick(lex.TOOLS[kind]))
    _open(s)
    s.tell("x.dear", "lost." + how, "stuck.fail." + kind)
    s.maybe(0.6, "sad")
    k = s.helper(reach)
    s.tell("meet.k", "stuck.help." + ("tool" if "person" in s.flags else s.ability_of(k.noun, reach)))
    s.maybe(0.5, "happy")
    s.maybe(0.6, "thanks")
    s.maybe(0.6, "stuck.after")
    s.maybe(0.75, "end")


def retrace(s):
    s.hero()
    s.kin()
    s.thing("slip", exclude=("ring",))
    act, acthad, glint = s.pick(RETRACE)
    s.set(act=act, acthad=acthad, glint=glint)
    s.flags.add("careful")
    _open(s)
    s.tell("x.dear", "retrace.go")
    s.maybe(0.5, "sad")
    s.tell("retrace.think")
    s.helper()
    s.flags.discard("helped")
    s.tell("retrace.back")
    s.maybe(0.5, "happy")
    s.maybe(0.6, "retrace.end")
    s.maybe(0.8, "end")


def rescue(s):
    s.hero()
    nouns, trouble, fixes = s.pick(TROUBLES)
    nouns = [n for n in nouns.split("|") if n not in s.nouns]
    if not nouns:
        return False
    noun = s.pick(nouns)
    v = s.cast_as("v", Character(None, noun, s._pronoun(), s.pick("small|young|frightened|tiny|little"), hands="paws"))
    s.set(trouble=s.pick(trouble), fix=s.pick(fixes).replace("{v}", "the " + v.noun).replace("{S}", s.env["h"].pronoun))
    if "river" in s.env["trouble"]:
        s.set(place="down by the river")
    if noun in ("beetle", "ladybug", "bee", "butterfly"):
        s.flags.add("tiny")
    _open(s)
    s.tell("rescue.find")
    s.maybe(0.8, "rescue.talk")
    if s.rng.random() < 0.6:
        s.tell("rescue.fail")
        s.flags.add("failed")
    s.tell("rescue.do")
    s.maybe(0.6, "rescue.after")
    s.tell("rescue.repay")
    s.maybe(0.7, "end")


def build(s):
    h = s.hero("child animal adult")
    if "adult" in s.flags and s.rng.random() < 0.5:
        return False
    want, wit, mats, short, fails, goods = s.pick(BUILDS)
    if "raft" in want and "swim" in h.abilities:
        return False
    s.set(w=want, wit=wit, mat=mats, matshort=short, fail=s.pick(fails), good=s.pick(goods))
    s.flags.add("patient")
    _open(s)
    s.tell("build.want", "build.first", "build.fail")
    s.maybe(0.4, "sad")
    s.friend()
    s.tell("build.friend", "build.second", "build.good")
    s.maybe(0.4, "happy")
    s.maybe(0.8, "end")


def errand(s):
    s.hero("child animal")
    if "child" in s.flags:
        s.kin()
    else:
        s.kin("grandmother|grandfather|old aunt|old uncle")
    obstacle = s.pick("bridge fog tree dark".split())
    item = s.pick(ITEMS)
    s.set(item=item, theitem="the " + item.split(" ", 1)[1], wild=s.pick(WILDS))
    _open(s)
    s.tell("errand.why")
    s.maybe(0.6, "errand.go")
    s.tell("obstacle." + obstacle)
    s.maybe(0.5, "sad")
    s.helper(ability={"bridge": "swim", "tree": "strong"}.get(obstacle))
    s.flags.discard("helped")
    if obstacle == "bridge":
        s.flags.add("bridge")
    s.tell("solve." + obstacle, "errand.arrive")
    s.maybe(0.6, "errand.end")
    s.flags.add("brave")
    s.maybe(0.8, "end")


def fear(s):
    h = s.hero("child animal")
    options = [f for f in FEARS if not f[1] & h.abilities and not (f[0] == "the dark" and h.noun in ("owl", "mole", "hedgehog"))]
    if not options:
        return False
    if h.adjective.startswith(("brave", "bold")):
        return False
    what, _, needs, deeds = s.pick(options)
    s.friend()
    f = s.env["f"]
    if "animal" in s.flags and "fly" in f.abilities | h.abilities or ("swim" in f.abilities and "water" in what):
        return False
    which = s.rng.randrange(len(needs))
    subst = {"S": "he" if f.pronoun == "he" else "she", "O": "him" if f.pronoun == "he" else "her", "F": f.name, "HS": "he" if h.pronoun == "he" else "she",
             "HP": "his" if h.pronoun == "he" else "her", "HO": "him" if h.pronoun == "he" else "her", "H": h.name, "FP": "his" if f.pronoun == "he" else "her"}
    s.set(fear=what, need=needs[which].format(**subst), deed=deeds[which].format(**subst))
    if h.pronoun == f.pronoun:
        return False
    _open(s)
    s.flags.add("brave")
    s.tell("fear.what", "fear.need", "fear.do", "fear.after")
    s.maybe(0.6, "fear.end")
    s.maybe(0.7, "end")


def share(s):
    s.hero("child animal")
    s.friend()
    s.thing("share")
    _open(s, 0.2)
    s.tell("share.start", "share.bad", "share.alone", "share.make")
    s.maybe(0.8, "share.end")
    s.maybe(0.6, "end")


def broken(s):
    s.hero("child animal")
    s.kin()
    s.flags.add("indoors")
    s.thing("fragile", exclude=("bell",))
    _open(s)
    s.tell("break.start", "break.do", "break.hide")
    s.tell("break.tell", "break.end")
    s.maybe(0.7, "break.last")
    s.flags.add("careful")
    s.maybe(0.5, "end")


def race(s):
    s.hero("child animal", without=("fly",))
    f = s.friend()
    if "fly" in f.abilities:
        return False
    help_out = s.rng.random() < 0.6
    _open(s)
    s.tell("race.start", "race.run")
    s.tell(*(("race.fall", "race.help") if help_out else ("race.rest", "race.steady")))
    s.maybe(0.75, "race.end." + ("help" if help_out else "steady"))
    if not help_out:
        s.flags.add("patient")
        s.flags.discard("friends")
    s.maybe(0.7, "end")


def garden(s):
    s.hero()
    s.season = "summer"
    s.flags -= {"winter", "autumn", "spring"}
    s.flags |= {"summer", "patient"}
    s.set(season="spring", weather=s.pick("sunny|bright|rainy|mild"))
    s.kin()
    s.friend()
    s.flags.discard("friends")
    plot, plants = s.pick(GARDENS)
    if "animal" in s.flags and "pot" in plot:
        return False
    s.set(plot=plot, plant=s.pick(plants))
    _open(s)
    s.tell("garden.start", "garden.wait")
    s.maybe(0.85, "garden.bad")
    s.tell("garden.grow")
    s.maybe(0.4, "happy")
    s.tell("garden.end")
    s.maybe(0.6, "end")


def storm(s):
    s.hero("animal adult")
    if "winter" in s.flags:
        return False
    s.set(loaf=s.pick("loaf of bread|piece of cheese|bag of apples"), weather=s.pick("windy|gray|hot|stormy"))
    s.friend()
    s.flags.discard("friends")
    _open(s)
    s.tell("storm.start", "storm.guest")
    s.helper()
    s.helper(key="e")
    s.tell("storm.more")
    s.tell("storm.food")
    s.tell("storm.after")
    s.maybe(0.7, "end")


def newcomer(s):
    s.hero("child animal")
    s.friend()
    _open(s)
    s.tell("new.come", "new.rumor", "new.try", "new.key")
    s.maybe(0.7, "new.why")
    s.tell("new.end")
    s.maybe(0.5, "end")


def mystery(s):
    s.hero("child animal adult")
    strange, who, reason = s.pick(MYSTERIES)
    nouns = [n for n in who.split("|") if n not in s.nouns]
    if not nouns:
        return False
    s.friend()
    s.flags.discard("friends")
    if s.env["f"].noun in nouns:
        return False
    s.set(strange=strange)
    _open(s)
    s.tell("mystery.what")
    s.tell("mystery.talk", "mystery.watch")
    v = s.cast_as("v", Character(None, s.pick(nouns), s._pronoun(), s.pick("small|young|tiny|little"), hands="paws"))
    s.set(reason=reason.format(S=v.pronoun.capitalize(), s=v.pronoun, P="his" if v.pronoun == "he" else "her"))
    s.tell("mystery.who", "mystery.end")
    s.maybe(0.75, "end")


def wish(s):
    s.hero()
    noun, adj, trouble = s.pick(MAGIC)
    if "winter" in s.flags and noun == "fish":
        return False
    s.env["magic"] = Thing(noun, adj)
    if noun == "fish":
        s.set(place="at the edge of the water")
    _open(s)
    s.set(mtrouble=trouble)
    s.tell("wish.find")
    s.maybe(0.8, "wish.think")
    f = s.friend()
    s.flags.discard("friends")
    sorrow, wishfor = s.pick(GOOD_WISHES)
    poss = "his" if f.pronoun == "he" else "her"
    s.set(sorrow=sorrow.format(P=poss, S=f.pronoun), wishfor=wishfor.format(P=poss, S=f.pronoun))
    s.tell("wish.see", "wish.say")
    s.maybe(0.8, "wish.end")
    s.maybe(0.7, "end")


def young_lost(s):
    s.hero("child animal", without=("fly",))
    if s.env["daytime"] == "evening":
        return False
    s.set(wild=s.pick(WILDS))
    _open(s)
    s.tell("young.lost", "young.call")
    s.maybe(0.5, "sad")
    s.helper(ability="fly climb" if "animal" in s.flags else None)
    s.tell("young.help1", "young.go", "young.home")
    s.maybe(0.7, "young.end")
    s.maybe(0.7, "end")


def skill(s):
    h = s.hero("child")
    if h.adjective.startswith("clever"):
        return False
    s.kin()
    options = [k for k in SKILLS if not ("winter" in s.flags and k[0] in ("swim", "ride a bicycle")) and not ("winter" not in s.flags and k[0] == "skate")]
    name, fail1, fail2, tip, good = s.pick(options)
    poss = "his" if h.pronoun == "he" else "her"
    obj = "him" if h.pronoun == "he" else "her"
    sub = dict(S=h.pronoun, P=poss, O=obj)
    s.set(skill=name, skfail1=s.pick(fail1).format(**sub), skfail2=s.pick(fail2).format(**sub), sktip=s.pick(tip), skgood=good.format(**sub))
    s.friend()
    s.flags.discard("friends")
    s.flags.add("patient")
    _open(s)
    s.tell("skill.want", "skill.first")
    s.maybe(0.8, "skill.tease")
    title, pronoun = s.pick(lex.NEIGHBORS)
    s.cast_as("k", Character(None, "neighbor", pronoun, title=title))
    s.tell("skill.teach", "skill.do")
    s.maybe(0.7, "skill.end")
    s.maybe(0.7, "end")


def trick(s):
    h = s.hero("animal", without=("fly", "strong"))
    bad = s.pick([b for b in BAD if b != h.noun])
    if h.noun in ("fox", "owl", "puppy", "bear"):
        return False
    talk, do = s.pick(TRICKS)
    s.set(bad=bad, trick=talk.replace("other wolf", "other " + bad), trickdo=do)
    _open(s)
    s.cast_as("villain", Character(None, bad, "he")).seen = 1 << 20  # spoken of in every sentence: "he" stays his
    s.tell("trick.start", "trick.talk", "trick.fall", "trick.end")
    s.maybe(0.8, "trick.last")
    s.maybe(0.6, "end")


def winter(s):
    s.hero("animal")
    s.flags -= set(lex.SEASONS)
    s.flags.add("winter")
    s.season = "winter"
    s.set(season="winter", weather=s.pick(lex.WEATHER["winter"]))
    s.friend()
    _open(s)
    s.tell("winter.start", "winter.ask")
    s.flags.add("asked")
    s.tell("winter.doubt", "winter.share", "winter.later")
    s.maybe(0.8, "end")


def lamp(s):
    s.hero("child adult")
    s.region = "sea"
    s.places()
    s.set(home=s.pick("on a small island in the sea|in a lighthouse on a rocky shore|in a fishing village by the sea|on a windy cliff above the sea"), daytime="evening")
    if "adult" in s.flags:
        s.env["h"].noun = "lighthouse keeper"
    s.set(weather=s.pick("windy|cold|stormy|gray"))
    f = s.friend()
    why, fix = s.pick(LAMPS)
    s.set(lampwhy=why, lampfix=fix)
    s.flags.add("sea")
    _open(s)
    s.flags.discard("friends")
    s.tell("lamp.start", "lamp.bad")
    s.maybe(0.8, "lamp.try")
    s.tell("lamp.do", "lamp.end")
    s.maybe(0.8, "end")
    return f is not None


def treasure(s):
    s.hero("child animal")
    s.kin()
    s.friend()
    s.thing("slip", key="t0")
    s.set(inside=s.pick(TREASURES))
    _open(s)
    s.tell("map.find", "map.go", "map.wrong", "map.dig", "map.inside")
    s.maybe(0.8, "map.end")
    s.maybe(0.6, "end")


def gift(s):
    s.hero("child animal")
    s.kin()
    x = s.thing("made", exclude=("boat", "drum"))
    s.helper(ability="gnaw dig" if "animal" in s.flags else None)
    s.flags.discard("helped")
    _open(s)
    s.tell("gift.want")
    s.maybe(0.8, "gift.fail")
    s.tell("gift.idea", "gift.work", "gift.give")
    s.maybe(0.8, "gift.end")
    s.maybe(0.6, "end")
    return x is not None


def trade(s):
    s.hero("child adult")
    x = s.thing("child")
    chain = s.rng.sample([t for t in TRADES if t != x.noun], 3)
    for i, words in enumerate(chain):
        adjective, _, noun = words.rpartition(" ")
        s.env[f"t{i}"] = Thing(noun, adjective)
    s.stranger("a")
    s.stranger("b")
    s.flags.add("indoors")
    _open(s)
    s.tell("trade.want", "trade.step1", "trade.step2", "trade.step3", "trade.end")
    s.maybe(0.7, "end")


FAMILIES = [lost_and_stuck, lost_and_stuck, retrace, rescue, rescue, build, build, errand, errand, fear, share, broken, race, garden, storm, newcomer, mystery,
            wish, young_lost, skill, trick, winter, lamp, treasure, gift, trade]
