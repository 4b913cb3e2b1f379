#!/usr/bin/env python3
"""The floors check catches what it is for: each planted violation, and nothing in a clean tree."""
import pathlib
import tempfile
import unittest

import floors

HEADER = "// What lives here.\n"


class FloorsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.src = pathlib.Path(folder.name)
        for name in ("base/error.h", "tensor/tensor.h", "format/file.h", "plan/plan.h", "text/tokenizer.h", "model/llama.h",
                     "backend/backend.h", "backend/cpu/cpu.h", "backend/reference/reference.h", "engine/engine.h",
                     "engine/fake_for_test.h", "server/server.h", "trace/trace.h", "app/load.h"):
            self.write(name, HEADER)

    def write(self, name, text):
        path = self.src / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def found(self):
        return [f"{path}:{line}" for path, line, _ in floors.faults(self.src)]

    def include(self, name, included):
        self.write(name, f'{HEADER}\n#include "{included}"\n')
        return self.found()

    def test_a_clean_tree_has_no_faults(self):
        self.assertEqual(self.found(), [])

    def test_allowed_includes(self):
        for name, included in (("tensor/a.cpp", "base/error.h"), ("engine/a.cpp", "backend/backend.h"),
                               ("engine/a.cpp", "engine/engine.h"), ("backend/cpu/a.cpp", "backend/backend.h"),
                               ("backend/cpu/a.cpp", "backend/cpu/cpu.h"), ("app/a.cpp", "backend/cpu/cpu.h"),
                               ("backend/cpu/a_test.cpp", "backend/reference/reference.h"),
                               ("model/a_test.cpp", "engine/fake_for_test.h"), ("app/a_test.cpp", "app/load.h"),
                               ("app/a.cpp", "server/server.h")):
            with self.subTest(name=name, included=included):
                self.assertEqual(self.include(name, included), [])
                (self.src / name).unlink()

    def test_forbidden_includes(self):
        for name, included in (("base/a.h", "tensor/tensor.h"), ("format/a.cpp", "plan/plan.h"),
                               ("model/a.cpp", "backend/backend.h"), ("backend/a.cpp", "model/llama.h"),
                               ("backend/cpu/a.cpp", "backend/reference/reference.h"),
                               ("backend/a.cpp", "backend/cpu/cpu.h"), ("plan/a.cpp", "backend/backend.h"),
                               ("engine/a.cpp", "text/../server/server.h"),
                               ("server/a.cpp", "trace/trace.h"), ("server/a.cpp", "app/load.h"),
                               ("engine/a_test.cpp", "app/load.h"), ("engine/a.cpp", "engine/fake_for_test.h"),
                               ("engine/a.cpp", "missing.h")):
            with self.subTest(name=name, included=included):
                self.assertEqual(self.include(name, included), [f"{name}:3"])
                (self.src / name).unlink()

    def test_angle_brackets_are_no_way_around(self):
        self.write("base/a.h", HEADER + "#include <tensor/tensor.h>\n#include <vector>\n")
        self.assertEqual(self.found(), ["base/a.h:2"])

    def test_names_sizes_and_headers(self):
        self.write("base/utils/a.h", HEADER)
        self.write("lobby/a.h", HEADER)
        self.write("base/long.cpp", HEADER + "\n" * 600)
        self.write("base/silent.cpp", "#include <vector>\n")
        self.write("base/error.cpp", "#include <vector>\n")
        self.write("base/error_test.cpp", "#include <vector>\n")
        self.assertEqual(self.found(), ["base/long.cpp:600", "base/silent.cpp:1", "base/utils:1", "lobby/a.h:1"])


if __name__ == "__main__":
    unittest.main()
