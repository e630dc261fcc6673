"""Short files, nothing large."""
LINES, BYTES = 400, 256 * 1024


def too_large(tree):
    for name in tree.files():
        size = (tree.root / name).stat().st_size
        if size > BYTES:
            yield name, 1, f"{size} bytes, more than {BYTES}: what is generated is not committed"


def too_long(tree):
    for name in tree.files(".swift", ".c", ".h", ".py"):
        count = len(tree.text(name).splitlines())
        if count > LINES:
            yield name, count, f"{count} lines, more than {LINES}: make two files, each with one job"


RULES = [too_large, too_long]
