"""All rules, less what is allowed."""
from . import docs, prose, sizes, swift

ALLOWED = "scripts/tidying/allowed"
RULES = sizes.RULES + prose.RULES + docs.RULES + swift.RULES


def allowed(tree):
    """(line, rule, file, word) of each that is."""
    text = tree.text(ALLOWED) if ALLOWED in tree.names else ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, *(line.split(" ", 3) + [""] * 3)[:4]


def faults(tree, rules=RULES):
    """(file, line, text) in the order of the rules."""
    exceptions = list(allowed(tree))
    for number, rule, name, word, why in exceptions:
        if not why:
            yield ALLOWED, number, "no reason: write rule, file, word and why"
    unused = {number: (rule, name) for number, rule, name, _, _ in exceptions if rule in {one.__name__ for one in rules}}
    for rule in rules:
        for name, line, text in rule(tree):
            match = [e for e in exceptions if e[1] == rule.__name__ and e[2] == name and e[3] in text]
            for number, *_ in match:
                unused.pop(number, None)
            if not match:
                yield name, line, text
    for number, (rule, name) in unused.items():
        yield ALLOWED, number, f"the rule `{rule}` finds nothing of this in {name}: delete the line"
