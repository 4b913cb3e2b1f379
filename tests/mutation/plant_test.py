#!/usr/bin/env python3
"""The planter keeps its table true: what does not fit the sources is an error, what fits can be switched on and off."""
import pathlib
import tempfile
import unittest

import plant

HEAD = "[wrong]\nbug = it is wrong\nfile = a.cpp\nmodel = f32\nstep = embed\n"


class PlantTest(unittest.TestCase):
    def plant(self, table, text):
        edits = [(original, bug.number, mutated) for bug in plant.parse(table) for original, mutated in bug.edits]
        return plant.plant(text, edits, "a.cpp")

    def assert_error(self, words, function, *arguments):
        with self.assertRaises(plant.TableError) as raised:
            function(*arguments)
        self.assertIn(words, str(raised.exception))

    def test_an_expression_gets_a_conditional(self):
        self.assertEqual(self.plant(HEAD + "- a + 1\n+ a\n", "int b = a + 1;"),
                         "int b = (mutation_is(1) ? (a) : (a + 1));")

    def test_a_statement_gets_branches(self):
        self.assertEqual(self.plant(HEAD + "- f(a);\n+ ;\n", "for (;;) f(a);"),
                         "for (;;) { if (mutation_is(1)) { ; } else { f(a); } }")

    def test_lines_of_an_edit_belong_together(self):
        self.assertEqual(self.plant(HEAD + "- f();\n-   g();\n+ h();\n+ i();\n", "f();\n  g();\n"),
                         "{ if (mutation_is(1)) { h();\ni(); } else { f();\n  g(); } }\n")

    def test_a_bug_may_have_several_edits(self):
        self.assertEqual(self.plant(HEAD + "- a\n+ b\n- c\n+ d\n", "a = c"),
                         "(mutation_is(1) ? (b) : (a)) = (mutation_is(1) ? (d) : (c))")

    def test_bugs_may_share_an_original(self):
        table = HEAD + "- a\n+ b\n" + HEAD.replace("wrong]", "other]") + "- a\n+ c\n"
        self.assertEqual(self.plant(table, "a"), "(mutation_is(1) ? (b) : mutation_is(2) ? (c) : (a))")

    def test_an_original_occurs_once(self):
        for text in ("f(c);", "a = a;"):
            self.assert_error("expected once in a.cpp", self.plant, HEAD + "- a\n+ b\n", text)

    def test_originals_do_not_overlap(self):
        table = HEAD + "- a + c\n+ b\n" + HEAD.replace("wrong]", "other]") + "- c - d\n+ c\n"
        self.assert_error("overlaps", self.plant, table, "a + c - d")

    def test_a_table_is_complete(self):
        self.assert_error("lacks step", plant.parse, HEAD.replace("step = embed\n", "") + "- a\n+ b\n")
        self.assert_error("no edit", plant.parse, HEAD)
        self.assert_error("twice", plant.parse, (HEAD + "- a\n+ b\n") * 2)
        self.assert_error("line 6", plant.parse, HEAD + "colour = red\n")
        self.assert_error("line 6", plant.parse, HEAD + "+ b\n")

    def test_copies_and_table_are_written(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "src").mkdir()
            (root / "src/a.cpp").write_text("int b = a;\n")
            plant.copy(plant.parse(HEAD + "- a\n+ c\n"), root / "src", root, "switch.h")
            self.assertEqual((root / "a.cpp").read_text(), '#include "switch.h"\nint b = (mutation_is(1) ? (c) : (a));\n')
            self.assertIn('{1, "wrong", "it is wrong", "a.cpp", "f32", "embed"}',
                          (root / "planted_bugs.h").read_text())

    def test_a_page_shows_the_table(self):
        bugs = plant.parse(HEAD + "- a\n+ b\n")
        begin, end = plant.marks("bugs.txt")
        page = f"before\n{begin}\nold\n{end}\nafter\n"
        shown = plant.documented(page, bugs, "bugs.txt")
        self.assertIn("| it is wrong | `a.cpp` | `embed` |", shown)
        self.assertTrue(shown.startswith("before\n") and shown.endswith("after\n"))
        self.assertEqual(plant.documented(shown, bugs, "bugs.txt"), shown)
        for other in ("no table\n", shown):
            self.assert_error("lacks its lines", plant.documented, other, bugs, "others.txt")


if __name__ == "__main__":
    unittest.main()
