"""The files that are looked at."""
import re
import subprocess
from pathlib import Path

STRING = r'"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"'
COMMENT = re.compile(STRING + r"|//[^\n]*|/\*.*?\*/", re.DOTALL)


class Tree:
    def __init__(self, root, names=None):
        self.root = Path(root)
        self.names = sorted(listed(self.root) if names is None else names)
        self.texts, self.codes = {}, {}

    def files(self, *suffixes, under=()):
        """Names with these suffixes, in these folders; nothing given: all."""
        for name in self.names:
            if (not suffixes or name.endswith(suffixes)) and (not under or name.startswith(under)):
                yield name

    def text(self, name):
        if name not in self.texts:
            self.texts[name] = (self.root / name).read_text()
        return self.texts[name]

    def code(self, name):
        """Without comments; lines keep their numbers."""
        if name not in self.codes:
            self.codes[name] = COMMENT.sub(
                lambda found: found[0] if found[0][0] == '"' else "\n" * found[0].count("\n"), self.text(name))
        return self.codes[name]

    def found(self, pattern, names):
        """(name, line, match) of a pattern in code."""
        for name in names:
            code = self.code(name)
            for match in (pattern if isinstance(pattern, re.Pattern) else re.compile(pattern, re.MULTILINE)).finditer(code):
                yield name, code.count("\n", 0, match.start()) + 1, match


def listed(root):
    """Those of the repository; of an unpacked archive all but what was built."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=root, capture_output=True)
    if answer.returncode == 0:
        return [name for name in answer.stdout.decode().split("\0") if name and (root / name).is_file()]
    return [
        str(path.relative_to(root)) for path in root.rglob("*")
        if path.is_file() and not path.relative_to(root).parts[0].startswith(".build")
    ]
