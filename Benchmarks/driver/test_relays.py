import unittest

from . import relays

PLACE = {"listen": "[::1]:443", "backend": "[::1]:10000"}


class EnvsTests(unittest.TestCase):
    def test_a_block_is_there_once_for_each_env(self):
        text = "a\n  # each env\n  @ENV@ to @BACKEND_ADDRESS@:@ENV_PORT@\n  # end\nb\n"
        self.assertEqual(relays.fill(text, {**PLACE, "envs": 2}), "a\n  e0000 to [::1]:10000\n  e0001 to [::1]:10001\nb\n")

    def test_every_relay_that_looks_at_names_has_such_a_config(self):
        for template, other in relays.OF_MANY_ENVS.items():
            one, many = ((relays.CONFIGS / name).read_text() for name in (template, other))
            self.assertNotIn("@ENV@", one)
            filled = relays.fill(many, {**PLACE, "envs": 1000, "directory": "/nowhere"})
            self.assertNotRegex(filled, "@[A-Z_]+@")
            for number in (0, 999):
                self.assertIn(f"e0{number:03}.example.com", filled)
                self.assertRegex(filled, rf"\b{10_000 + number}\b")


if __name__ == "__main__":
    unittest.main()
