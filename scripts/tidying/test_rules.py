"""Each rule sees what it is for, and lets pass what only looks like it."""
import tempfile
import unittest
from pathlib import Path

from . import check, docs, prose, sizes, swift
from .tree import Tree

CODE = "Sources/Code.swift"
TEST = "Tests/CodeTests.swift"
PAGE = "docs/PAGE.md"
STATUS = "# 0001: One\n\n**Status.** Accepted.\n"


class Planted(unittest.TestCase):
    def faults(self, rule, files):
        """Where the rule finds something: (name, line)."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            tree = Tree(folder, list(files))
            self.texts = []
            found = []
            for name, line, text in check.faults(tree, [rule]):
                found.append((name, line))
                self.texts.append(text)
            return found

    def test_every_rule_is_tested(self):
        text = Path(__file__).read_text()
        for rule in check.RULES:
            module = rule.__module__.rsplit(".", 1)[1]
            self.assertIn(f"{module}.{rule.__name__},", text, "plant something that it finds")

    def test_large(self):
        self.assertEqual(self.faults(sizes.too_large, {"a.json": " " * sizes.BYTES}), [])
        self.assertEqual(self.faults(sizes.too_large, {"a.json": " " * (sizes.BYTES + 1)}), [("a.json", 1)])

    def test_long(self):
        self.assertEqual(self.faults(sizes.too_long, {CODE: "\n" * 400, PAGE: "\n" * 500}), [])
        self.assertEqual(self.faults(sizes.too_long, {CODE: "\n" * 401}), [(CODE, 401)])

    def test_wide(self):
        word, table, code = "word " * 30, "| " + "cell " * 30, "```\n" + "code " * 30 + "\n```"
        self.assertEqual(self.faults(prose.too_wide, {PAGE: f"{table}\n\n{code}\n"}), [])
        self.assertEqual(self.faults(prose.too_wide, {PAGE: f"short\n\n{word}\n"}), [(PAGE, 3)])

    def test_decisions(self):
        page, index = "docs/adr/0001-one.md", "docs/adr/README.md"
        row = "| [0001](0001-one.md) | One | Accepted |\n"
        self.assertEqual(self.faults(docs.unlisted, {page: STATUS, index: row}), [])
        self.assertEqual(self.faults(docs.unlisted, {page: STATUS, index: ""}), [(index, 1)])
        self.assertEqual(self.faults(docs.unlisted, {page: "# 0001: One\n", index: row}), [(page, 1)])

    def test_links(self):
        files = {
            PAGE: "[a](OTHER.md#the-place) [b](https://example.com/no) `[c](no.md)`\n\n```\n[d](no.md)\n```\n",
            "docs/OTHER.md": "# Other\n\n## The `place`\n"}
        self.assertEqual(self.faults(docs.dead_links, files), [])
        files[PAGE] += "[e](no.md)\n[f](OTHER.md#no)\n[g](#no)\n"
        self.assertEqual(self.faults(docs.dead_links, files), [(PAGE, 6), (PAGE, 7), (PAGE, 8)])

    def test_changes(self):
        name, text = docs.CHANGES, "# Changelog\n\n## [Unreleased]\n\n### Added\n"
        self.assertEqual(self.faults(docs.changes, {name: text}), [])
        self.assertEqual(self.faults(docs.changes, {}), [(name, 1)])
        self.assertEqual(self.faults(docs.changes, {name: "# Changelog\n"}), [(name, 1)])
        self.assertEqual(self.faults(docs.changes, {name: text + "### News\n"}), [(name, 6)])

    def test_counts(self):
        files = {"Examples/a/Sources/A.swift": "a\nb\n", PAGE: "| `Sources/A.swift` | 2 | an example |\n"}
        self.assertEqual(self.faults(docs.counts, files), [])
        self.assertEqual(self.faults(docs.counts, files | {PAGE: "\n| `Sources/A.swift` | 3 | an example |\n"}), [(PAGE, 2)])
        self.assertEqual(self.faults(docs.counts, {PAGE: "| `Sources/A.swift` | 3 | it is gone |\n"}), [(PAGE, 1)])

    def test_dead(self):
        text = "package func used() {}\npackage func unused() {}\n// unused() is a thing of the past\n"
        self.assertEqual(self.faults(swift.dead, {CODE: text, TEST: "used()\n"}), [(CODE, 2)])
        self.assertIn("`unused`", self.texts[0])
        self.assertEqual(self.faults(swift.dead, {CODE: text, TEST: "used()\nunused()\n"}), [])
        twice = "struct A {\n    let a = 1\n}\nstruct B {\n    let a = 2\n}\nA()\nB()\n"
        self.assertEqual(self.faults(swift.dead, {CODE: twice}), [(CODE, 2), (CODE, 5)])
        header, source = "Sources/CLinux/include/C.h", "Sources/CLinux/C.c"
        files = {header: "int cl_a(void);\nint cl_b(void);\n", source: "int cl_a(void) {}\nint cl_b(void) {}\n"}
        self.assertEqual(self.faults(swift.dead, files | {TEST: "cl_a()\n"}), [(header, 2)])

        called = "Sources/Command/Run.swift"
        self.assertEqual(self.faults(swift.dead, {called: "func validate() {}\n", CODE: "func validate() {}\n"}), [(CODE, 1)])

    def test_traps(self):
        for bad in ["try! f()", "a as! B", "fatalError()", "a!.b", "f()! + 1", "a[0]!", "var a: B!"]:
            self.assertEqual(self.faults(swift.traps, {CODE: f"\n{bad}\n"}), [(CODE, 2)], bad)
        good = 'a != b\n!a\nf(!a)\n"no!"\n// a!\n"\\(a)!"\n'
        self.assertEqual(self.faults(swift.traps, {CODE: good, TEST: "a!\n"}), [])

    def test_sleeps(self):
        for bad in ["usleep(1)", "sleep(1)", "cl_sleep(1)", "Thread.sleep(1)", "await Task.sleep(1)", '["sleep", "5"]',
                    "poll(nil, 0, 5)", "select(0, nil, nil, nil, &time)", "time.sleep(1)", "select.select([], [], [], 1)"]:
            self.assertEqual(self.faults(swift.sleeps, {TEST: f"\n{bad}\n"}), [(TEST, 2)], bad)
        good = 'wheel.sleep(now: 1)\n// usleep(1)\n"the worker sleeps past"\n'
        self.assertEqual(self.faults(swift.sleeps, {TEST: good, swift.WAITS: "usleep(1)\n", CODE: "usleep(1)\n"}), [])
        python = "Benchmarks/driver/test_all.py"
        self.assertEqual(self.faults(swift.sleeps, {python: "time.sleep(1)\n", "Benchmarks/run.py": "time.sleep(1)\n"}), [(python, 1)])

    def test_hasty(self):
        for bad in ["Deadline(seconds: 0.3)", "Deadline(seconds: 19)", "Date(timeIntervalSinceNow: 5)", "s.settimeout(2)", "f(timeout=10)",
                    "timeval(tv_sec: 0, tv_usec: 5)", '["curl", "--max-time", "2"]']:
            self.assertEqual(self.faults(swift.hasty, {TEST: f"\n{bad}\n"}), [(TEST, 2)], bad)
        good = "Deadline(seconds: 20)\nDeadline(seconds: 0)\nDeadline(seconds: life)\nDeadline(patience: 0.1)\n"
        self.assertEqual(self.faults(swift.hasty, {TEST: good, swift.WAITS: "Deadline(seconds: 1)\n"}), [])

    def test_ports(self):
        for bad in ['listen(at: Place("::1", 8080))', 'tlsListeners: [a, Place("127.0.0.1", 443)]', 'let entry = Place("::", 8443)',
                    'Server("::1", port: 40_002) {', 'Server.echo("127.0.0.1", port: 9000)']:
            self.assertEqual(self.faults(swift.ports, {TEST: f"\n{bad}\n"}), [(TEST, 2)], bad)
        good = 'Place("::1", port)\nlisten(at: Place("::1", 0))\nServer("2001:db8:9::2", port: 9000)\nbackends: [Place("::1", 9)]\n'
        self.assertEqual(self.faults(swift.ports, {TEST: good}), [])

    def test_numbers(self):
        self.assertEqual(self.faults(swift.numbers, {CODE: '"it failed: error \\(error)"\n'}), [(CODE, 1)])
        self.assertEqual(self.faults(swift.numbers, {CODE: '"see `errno \\(error)`"\n'}), [(CODE, 1)])
        good = '"it failed: \\(kernelError(error)), error \\(errorName(error))"\n"error: \\(problem)"\n// "error \\(error)"\n'
        self.assertEqual(self.faults(swift.numbers, {CODE: good}), [])

    def test_keywords(self):
        name = "Sources/Filters/Geo/Geo.swift"
        files = {name: 'keyword: "geo"\nkeyword == "geo"\nstage.source.contains("geo")\n'}
        for bad in ['$0.keyword == "geo"', 'word != "geo"', 'stage.source.contains("from instance")']:
            self.assertEqual(self.faults(swift.keywords, files | {CODE: f"\n{bad}\n"}), [(CODE, 2)], bad)
        good = 'keyword == word\nkeyword == "node"\n"geo"\nsource = 1\n'
        self.assertEqual(self.faults(swift.keywords, files | {CODE: good}), [])
        files = {name: 'FilterDescriptor(\n    keyword: "geo",\n    help: "write `geo deny`")\n'}
        language = "Sources/Pipeline/Language/Words.swift"
        self.assertEqual(self.faults(swift.keywords, files | {language: '// `geo`\n"write `geo deny`"\n'}), [(language, 2)])
        self.assertEqual(self.faults(swift.keywords, files | {CODE: '"write `geo deny`"\n'}), [])

    def test_allowed(self):
        files = {CODE: "fatalError()\n", check.ALLOWED: f"# a comment\n\ntraps {CODE} `fatalError(` it can't be\n"}
        self.assertEqual(self.faults(swift.traps, files), [])
        self.assertEqual(self.faults(swift.traps, files | {CODE: "\n"}), [(check.ALLOWED, 3)])
        files[check.ALLOWED] = f"traps {CODE} `fatalError(`\n"
        self.assertEqual(self.faults(swift.traps, files), [(check.ALLOWED, 1)])
