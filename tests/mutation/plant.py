#!/usr/bin/env python3
"""Plants the bugs of a table (planted_bugs.txt says how one is written) into copies of sources; each sleeps behind a switch.

Usage: plant.py files TABLE                  the sources that the table names, one a line
       plant.py copy TABLE SRC OUT HEADER    writes their copies, and OUT/planted_bugs.h, the table for the test program
       plant.py docs TABLE PAGE [--write]    checks, or writes, the table of bugs in a page of the documentation

An original that does not occur exactly once in its source is an error, so the table stays true. A copy includes HEADER,
which declares `bool mutation_is(int number)` for the code of that source: for a device, one that its kernels can call.
"""
import dataclasses
import pathlib
import re
import sys

KEYS = ("bug", "file", "model", "step")


@dataclasses.dataclass
class Bug:
    number: int
    id: str
    fields: dict = dataclasses.field(default_factory=dict)
    edits: list = dataclasses.field(default_factory=list)  # (original, mutated)


class TableError(Exception):
    pass


def parse(text):
    """The bugs of a table, numbered from 1."""
    bugs = []
    last = ""
    for n, line in enumerate(text.splitlines(), 1):
        sign, rest = line[:1], line[2:]
        if re.fullmatch(r"\[[a-z0-9-]+\]", line):
            bugs.append(Bug(len(bugs) + 1, line[1:-1]))
        elif not line.strip() or sign == "#":
            pass
        elif not bugs:
            raise TableError(f"line {n}: expected [the id of a bug]: {line}")
        elif sign == "-" and last == "-":
            bugs[-1].edits[-1][0] += "\n" + rest
        elif sign == "-":
            bugs[-1].edits.append([rest, ""])
        elif sign == "+" and last in ("-", "+"):
            edit = bugs[-1].edits[-1]
            edit[1] += "\n" + rest if last == "+" else rest
        else:
            key, separator, value = (part.strip() for part in line.partition("="))
            if key not in KEYS or not separator:
                raise TableError(f"line {n}: expected one of {', '.join(KEYS)}, or an edit: {line}")
            bugs[-1].fields[key] = value
        last = sign
    ids = [bug.id for bug in bugs]
    for bug in bugs:
        missing = [key for key in KEYS if key not in bug.fields]
        if missing or not bug.edits or ids.count(bug.id) > 1:
            raise TableError(f"[{bug.id}]: " + (f"lacks {', '.join(missing)}" if missing else "has no edit, or its id twice"))
    return bugs


def switched(original, choices):
    """The original behind the switches of its bugs: [(number, mutated)]."""
    if not original.rstrip().endswith((";", "}")):  # an expression
        return "(" + "".join(f"mutation_is({n}) ? ({mutated}) : " for n, mutated in choices) + f"({original}))"
    branches = "".join(f"if (mutation_is({n})) {{ {mutated} }} else " for n, mutated in choices)
    return f"{{ {branches}{{ {original} }} }}"


def plant(text, edits, where):
    """text with all edits [(original, number, mutated)] in it. Bugs of one place share their original."""
    choices = {}
    for original, number, mutated in edits:
        choices.setdefault(original, []).append((number, mutated))
    places = []
    for original, numbers in choices.items():
        count = text.count(original)
        if count != 1:
            raise TableError(f"bug {numbers[0][0]}: expected once in {where}, found {count} times: {original}")
        places.append((text.index(original), original))
    places.sort(reverse=True)
    end = len(text)
    for at, original in places:
        if at + len(original) > end:
            raise TableError(f"bug {choices[original][0][0]}: overlaps another original in {where}: {original}")
        end = at
        text = text[:at] + switched(original, choices[original]) + text[at + len(original):]
    return text


def cpp_string(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def cpp_table(bugs):
    rows = "".join("    {{{}}},\n".format(", ".join(
        [str(bug.number)] + [cpp_string(value) for value in (bug.id, *(bug.fields[key] for key in KEYS))])) for bug in bugs)
    fields = ", ".join(f"*{key}" for key in ("id",) + KEYS)
    return ("// The planted bugs, made by plant.py.\n#pragma once\n\nnamespace llorch::test {\n\n"
            f"struct PlantedBug {{\n  int number;\n  const char {fields};\n}};\n\n"
            f"inline constexpr PlantedBug kPlantedBugs[] = {{\n{rows}}};\n\n}}  // namespace llorch::test\n")


def files(bugs):
    return sorted({bug.fields["file"] for bug in bugs})


def copy(bugs, src, out, header):
    for name in files(bugs):
        edits = [(original, bug.number, mutated) for bug in bugs if bug.fields["file"] == name
                 for original, mutated in bug.edits]
        text = f'#include "{header}"\n' + plant((src / name).read_text(encoding="utf-8"), edits, name)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    (out / "planted_bugs.h").write_text(cpp_table(bugs), encoding="utf-8")


def markdown(bugs):
    rows = [f"| {bug.fields['bug']} | `{bug.fields['file'].split('/')[-1]}` | `{bug.fields['step']}` |" for bug in bugs]
    return "\n".join(["| bug | in | named |", "|---|---|---|"] + rows)


def marks(table):
    """The lines around what a page shows of a table, given by its file's name."""
    return f"<!-- {table}: made by tests/mutation/plant.py -->", f"<!-- end of {table} -->"


def documented(page, bugs, table):
    """The page with the table as it should be."""
    begin, end = marks(table)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise TableError(f"the page lacks its lines {begin} and {end}")
    head, rest = page.split(begin)
    return f"{head}{begin}\n{markdown(bugs)}\n{end}{rest.split(end)[1]}"


def main(arguments):
    command, table, *rest = arguments
    bugs = parse(pathlib.Path(table).read_text(encoding="utf-8"))
    if command == "files":
        print("\n".join(files(bugs)))
    elif command == "copy":
        copy(bugs, pathlib.Path(rest[0]), pathlib.Path(rest[1]), rest[2])
    elif command == "docs":
        page = pathlib.Path(rest[0])
        now = page.read_text(encoding="utf-8")
        wanted = documented(now, bugs, pathlib.Path(table).name)
        if "--write" in rest:
            page.write_text(wanted, encoding="utf-8")
        elif now != wanted:
            raise TableError(f"{page}: the table of planted bugs is not that of {table}; bring it up to date with\n"
                             f"  python3 tests/mutation/plant.py docs {table} {page} --write")
    else:
        raise TableError(f"no such command: {command}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except TableError as error:
        sys.exit(f"{sys.argv[2]}: {error}")
