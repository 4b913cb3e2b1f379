#!/usr/bin/env python3
"""Checks the house's floors (docs/architecture.md): who may include whom, file sizes, names and headers.

Usage: floors.py SRC. Prints one line `file:line: what is wrong` for each violation; exit code 1 if there is any.
"""
import pathlib
import re
import sys

FLOORS = {
    "base": 1,
    "tensor": 2,
    "format": 3, "plan": 3, "sampling": 3,
    "text": 4, "model": 4, "backend": 4,
    "engine": 5,
    "server": 6, "trace": 6,
    "app": 7,
}
# Rooms inside backend/: they include backend/*.h and never each other.
DEVICES = {"reference", "cpu", "cuda", "metal"}
MAX_LINES = 600
SOURCES = {".h", ".cpp", ".cu", ".cuh", ".metal", ".mm"}
BANNED = {"utils", "util", "common", "core", "helpers", "misc", "types.h"}
INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')


def room_of(path):
    """Room of a path relative to SRC: "base", "backend" or "backend/cpu"."""
    if path.parts[0] == "backend" and len(path.parts) > 2 and path.parts[1] in DEVICES:
        return "backend/" + path.parts[1]
    return path.parts[0]


def floor_of(room):
    return FLOORS.get(room.split("/")[0])


def is_test(path):
    return path.stem.endswith("_test") or is_test_header(path)


def is_test_header(path):
    return path.stem.endswith("_for_test")


def has_header(path, lines):
    """A file begins with its sentence, or is x.cpp or x_test.cpp beside an x.h that does."""
    stem = re.sub("_test$", "", path.stem)
    return bool(lines and re.match(r"// \S", lines[0])) or (path.suffix != ".h" and path.with_name(stem + ".h").exists())


def include_fault(includer, included):
    """Why `includer` may not include `included` (paths relative to SRC), or None if it may."""
    own, other = room_of(includer), room_of(included)
    if is_test_header(included) and not is_test(includer):
        return f"{included} is for tests only"
    if own == other:
        return None
    if is_test(includer):
        return "only app's own tests may include app" if other == "app" else None
    if own.startswith("backend/") and other == "backend":
        return None
    if floor_of(other) is None:
        return f"{other}/ is no room of the house"
    if floor_of(other) >= floor_of(own):
        return f"{own} (floor {floor_of(own)}) may not include {other} (floor {floor_of(other)})"
    return None


def faults(src):
    """Yields (path relative to src, line, text)."""
    for path in sorted(src.rglob("*")):
        relative = path.relative_to(src)
        if path.name in BANNED:
            yield relative, 1, f"no file or folder is called {path.name}: name it by what it does"
        if path.suffix not in SOURCES or not path.is_file():
            continue
        if len(relative.parts) == 1 or floor_of(room_of(relative)) is None:
            yield relative, 1, "stands in no room of the house"
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > MAX_LINES:
            yield relative, MAX_LINES, f"{len(lines)} lines, at most {MAX_LINES}: does it still hold one idea?"
        if not has_header(path, lines):
            yield relative, 1, "the first line says in a // comment what lives here"
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quoted, name = match[1] == '"', match[2]
            if ".." in pathlib.PurePath(name).parts:
                yield relative, number, "includes name the path from src/"
            elif (src / name).is_file():
                fault = include_fault(relative, pathlib.PurePath(name))
                if fault:
                    yield relative, number, fault
            elif quoted:
                yield relative, number, f'"{name}" is no file under src/; other libraries take <>'


def main():
    src = pathlib.Path(sys.argv[1])
    found = list(faults(src))
    for path, line, text in found:
        print(f"{src / path}:{line}: {text}")
    checked = sum(1 for path in src.rglob("*") if path.suffix in SOURCES)
    print(f"{checked} files, {len(found)} violations")
    return 1 if found or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
