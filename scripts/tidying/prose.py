"""Prose of at most 120 columns, in docs."""
import re

COLUMNS = 120
# A list item's marker, with what stands before it.
ITEM = re.compile(r"^(\s*)([-*+]|\d+[.)])\s+")
# A line that begins so is no paragraph's.
APART = re.compile(r"^\s*(\||#|>|<|```|~~~|\[[^\]]+\]:|:?-{3,}|={3,}|!\[)")
# What would be something else at the start of a line.
MARKER = re.compile(r"^([-*+]|\d+[.)]|#+|=+|-+)$|^[>|]")


def words(text):
    """Code spans stay whole, and what would be something else at the start of a line stays behind its word."""
    found, start, is_code = [], 0, False
    for i, c in enumerate(text + " "):
        if c == "`":
            is_code = not is_code
        elif c == " " and not is_code:
            if i > start and found and MARKER.match(text[start:i]):
                found[-1] += " " + text[start:i]
            elif i > start:
                found.append(text[start:i])
            start = i + 1
    return found


def wrapped(text, first, rest):
    """Lines of `text`; the first begins with `first`, the others with `rest`."""
    lines, line = [], first
    for word in words(text):
        is_empty = line == first if not lines else line == rest
        if not is_empty and len(line) + 1 + len(word) > COLUMNS:
            lines.append(line)
            line, is_empty = rest, True
        line += word if is_empty else " " + word
    return lines + [line]


def blocks(lines):
    """(lines, is prose) in order."""
    block, fence = [], None
    for line in lines:
        mark = line.lstrip()[:3]
        is_fence = mark in ("```", "~~~")
        if fence or is_fence:
            if block and not fence:
                yield block, True
                block = []
            block.append(line)
            if is_fence:
                if fence == mark:
                    yield block, False
                    block, fence = [], None
                elif not fence:
                    fence = mark
            continue
        is_code = line.startswith("    ") and not block
        if not line.strip() or APART.match(line) or is_code:
            if block:
                yield block, True
                block = []
            yield [line], False
        elif ITEM.match(line) and block:
            yield block, True
            block = [line]
        else:
            block.append(line)
    if block:
        yield block, fence is None


def wrap(path):
    lines = path.read_text().split("\n")
    out = []
    for block, is_prose in blocks(lines):
        # Two blanks at an end are a break that is meant.
        if not is_prose or max(map(len, block)) <= COLUMNS or any(line.endswith(("  ", "\\")) for line in block):
            out += block
            continue
        item = ITEM.match(block[0])
        first = item.group(0) if item else re.match(r"\s*", block[0]).group(0)
        rest = " " * len(first)
        out += wrapped(" ".join([block[0][len(first):], *(line.strip() for line in block[1:])]), first, rest)
    path.write_text("\n".join(out))


def wide(path):
    """Numbers of lines of prose that are too wide; what can't be broken is not."""
    number = 0
    for block, is_prose in blocks(path.read_text().split("\n")):
        for line in block:
            number += 1
            if is_prose and len(line) > COLUMNS and len(words(line.strip())) > 1:
                yield number


def too_wide(tree):
    for path in tree.files(".md"):
        for number in wide(tree.root / path):
            yield path, number, f"wider than {COLUMNS} columns: scripts/tidy --wrap"


RULES = [too_wide]
