"""Decisions are listed, links lead somewhere, the changelog says what comes next."""
import re
from urllib.parse import unquote

ADR = "docs/adr/"
CHANGES = "CHANGELOG.md"
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
LINK = re.compile(r"\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s+<?([^\s>]+)", re.MULTILINE)
COUNTED = re.compile(r"^\| `([\w./-]+\.swift)` \| (\d+) \|", re.MULTILINE)
CODE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def unlisted(tree):
    """Decisions without a status, or that the index does not have as they are."""
    pages = [name for name in tree.files(".md", under=ADR) if re.match(r"\d", name[len(ADR):])]
    index = tree.text(ADR + "README.md") if pages else ""
    for name in pages:
        text, file = tree.text(name), name[len(ADR):]
        title = re.sub(r"^# \d{4}:? ", "", text.split("\n", 1)[0])
        status = re.search(r"^\*\*Status\.\*\* (.*?)\.$", text, re.MULTILINE | re.DOTALL)
        if not status:
            yield name, 1, "no line `**Status.** Accepted.`: write it below the title"
            continue
        row = f"| [{file[:4]}]({file}) | {title} | {' '.join(status[1].split())} |"
        if row not in index:
            yield ADR + "README.md", 1, f"no row for {file} with its title and status: write `{row}`"


def prose(text):
    """Code is blanked, lines keep their numbers."""
    return CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def anchors(text):
    """What GitHub makes of headings."""
    seen, found = {}, set()
    body = re.sub(r"^ {0,3}(```|~~~).*?^ {0,3}\1[^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} +(.*?)[ #]*$", body, re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def dead_links(tree):
    for name in tree.files(".md"):
        text = prose(tree.text(name))
        for match in LINK.finditer(text):
            target = match[1] or match[2]
            if re.match(r"[a-z+]+:", target):
                continue
            line = text.count("\n", 0, match.start()) + 1
            path, _, anchor = unquote(target).partition("#")
            there = ((tree.root / name).parent / path).resolve() if path else tree.root / name
            if not there.exists():
                yield name, line, f"the link to {path} leads nowhere: name a file by its path from this one"
            elif anchor and there.suffix == ".md" and anchor not in anchors(there.read_text()):
                yield name, line, f"the link to {target} leads to no heading: name one of that page"


def changes(tree):
    """As keepachangelog.com has it."""
    if CHANGES not in tree.names:
        yield CHANGES, 1, "there is none: write one, as keepachangelog.com says"
        return
    lines = tree.text(CHANGES).splitlines()
    if "## [Unreleased]" not in lines:
        yield CHANGES, 1, "no section `## [Unreleased]`: write it above the releases"
    for number, line in enumerate(lines, 1):
        if line.startswith("### ") and line[4:] not in KINDS:
            yield CHANGES, number, f"`{line}` is no kind of change: one of {', '.join(KINDS)}"


def counts(tree):
    """A page that says how many lines a file has."""
    for name in tree.files(".md"):
        text = tree.text(name)
        for match in COUNTED.finditer(text):
            lines = [len(tree.text(file).splitlines()) for file in tree.names if file.endswith("/" + match[1])]
            if lines != [int(match[2])]:
                yield name, text.count("\n", 0, match.start()) + 1, f"{match[1]} has {lines or 'no'} lines: write how many"


RULES = [unlisted, dead_links, changes, counts]
