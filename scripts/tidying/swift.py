"""What a compiler does not see in our Swift."""
import re
from collections import Counter

WAITS = "Tests/Support/Deadline.swift"
# A machine that does other things besides may be as late; what is waited for less would be a pause.
SHORTEST = 20
DECLARED = re.compile(
    r"^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:[a-z]+(?:\(\w+\))?\s+)*?"
    r"(?:func|var|let|class|struct|enum|actor|protocol|typealias)\s+`?([A-Za-z_]\w*)", re.MULTILINE)
# ArgumentParser calls these.
CALLED = {"allValueStrings", "configuration", "defaultValueDescription", "run", "validate"}
SHORT = re.compile(r'"(?:[^"\\\n]|\\[^(\n])*"')
TRAPS = re.compile(r"\b(?:try|as)!|\bfatalError\(|[\w)\]]!(?![=\w\"])")
SLEEPS = re.compile(
    r'(?<![.\w])(?:cl_|u|nano|clock_nano)?sleep\(|\b(?:Thread|Task|time)\.sleep\(|"sleep[ "]|\bpoll\(nil|\bselect\(0,'
    r'|\bselect\.select\(\[\], \[\], \[\]|\basyncAfter\(')
WAITED = re.compile(
    r"\b(?:Deadline\(seconds: |Date\(timeIntervalSinceNow: |(?:set)?timeout(?:=|\()|timeval\(tv_sec: )([\d.]+)[,)]"
    r'|"--max-time", "(\d+)"')
HERE = r'"(?:::1?|0\.0\.0\.0|127\.[\d.]+)"'
PORTS = re.compile(
    rf'(?:\b(?:tls|raw)Listeners: \[[^\]]*|\blisten\(at: |\bentry = )Place\({HERE}, [1-9]'
    rf'|(?:Server|\.echo)\({HERE}, port: [1-9]')
NUMBERS = re.compile(r'"[^"\n]*\b(?:errno|error) \\\((?!String\(cString|error(?:Name|Text)\()')
TEXTS = r"\.source\.(?:contains|hasPrefix|hasSuffix|range|firstIndex|firstRange|split|starts)\b"


def swift(tree, *under):
    return tree.files(".swift", under=tuple(folder + "/" for folder in under))


def dead(tree):
    """By words alone: a name is used if it stands anywhere but where something of that name is declared."""
    used, declared, places = Counter(), Counter(), {}
    for name in swift(tree, "Sources", "Tests", "Fuzz", "Benchmarks", "Examples"):
        code = tree.code(name)
        used.update(re.findall(r"\w+", code))
        for match in DECLARED.finditer(code):
            declared[match[1]] += 1
            if name.startswith("Sources/"):
                places.setdefault(match[1], []).append((name, code.count("\n", 0, match.start(1)) + 1))
    for word, where in places.items():
        if used[word] <= declared[word]:
            for name, line in where:
                if word in CALLED and name.startswith("Sources/Command/"):
                    continue
                yield name, line, f"nothing uses `{word}`: delete it"
    header, code = "Sources/CLinux/include/", "".join(tree.text(name) for name in tree.files(".c", under=("Sources/",)))
    for name, line, match in tree.found(r"\b(cl_\w+)\(", tree.files(".h", under=(header,))):
        calls = len(re.findall(rf"\b{match[1]}\(", code)) + len(re.findall(rf"\b{match[1]}\(", tree.code(name)))
        if not used[match[1]] and calls < 3:
            yield name, line, f"nothing calls `{match[1]}`: delete it"


def traps(tree):
    for name in swift(tree, "Sources"):
        for number, line in enumerate(SHORT.sub('""', tree.code(name)).splitlines(), 1):
            if found := TRAPS.search(line):
                yield name, number, f"`{found[0]}` ends the process: handle it, or say in scripts/tidying/allowed why it can't be"


def tests(tree):
    """Those of Swift, but the one file that may wait; and those of examples and of the benchmark in Python."""
    yield from (name for name in swift(tree, "Tests", "Examples") if name != WAITS)
    yield from (name for name in tree.files("/test", under=("Examples/",)))
    yield from (name for name in tree.files(".py", under=("Benchmarks/",)) if name.rsplit("/", 1)[1].startswith("test_"))


def sleeps(tree):
    for name, line, match in tree.found(SLEEPS, tests(tree)):
        yield name, line, f"`{match[0]}` sleeps: await an event, or awaitUntil; a load has a Pace"


def hasty(tree):
    for name, line, match in tree.found(WAITED, tests(tree)):
        if match[0].startswith("timeval") or 0 < float(match[1] or match[2]) < SHORTEST:
            yield name, line, (
                f"waits for {match[1] or match[2]} s: what is to come has {SHORTEST} s at least, what is not is shown by a later event; "
                "a load's client has Deadline(patience:)")


def ports(tree):
    for name, line, match in tree.found(PORTS, tests(tree)):
        yield name, line, f"a fixed port, `{match[0]}`: take a FreePort"


def numbers(tree):
    for name, line, _ in tree.found(NUMBERS, swift(tree, "Sources")):
        yield name, line, "a message with a bare error number: kernelError(error), errorName(error)"


def keywords(tree):
    """Code that goes by which filter it is, not by what the filter declares."""
    own = [name for name in swift(tree, "Sources") if not name.startswith("Sources/Filters/")]
    names = {match[1] for _, _, match in tree.found(r'\bkeyword: "(\w+)"', swift(tree, "Sources/Filters"))}
    compared = "|".join(sorted(names)) or "-"
    pattern = rf'[!=]=\s*"(?:{compared})"|"(?:{compared})"\s*[!=]='
    for name, line, _ in tree.found(pattern, own):
        yield name, line, "goes by a filter's keyword: ask what the filter declares that it does"
    for name, line, _ in tree.found(TEXTS, own):
        yield name, line, "searches a directive's text: have its filter declare what this looks for"
    stages = {match[1] for _, _, match in tree.found(r'\bFilterDescriptor\(\s*keyword: "(\w+)"', swift(tree, "Sources/Filters"))}
    # A word of routes as well.
    stages.discard("backend")
    for name, line, match in tree.found(rf"`(?:{'|'.join(sorted(stages)) or '-'})\b", swift(tree, "Sources/Pipeline/Language")):
        yield name, line, f"the language names a filter, {match[0]}`: have the filter say it, as its `foreignWords` do"


RULES = [dead, traps, sleeps, hasty, ports, numbers, keywords]
