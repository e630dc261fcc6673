import unittest

from . import quiet


def rounds(*figures, relay=None):
    """Rounds whose load and backend took `figures` together, and whose relay took as much, or what `relay` lists."""
    own = relay or figures
    return [{"load_cpu_ns": f * 0.6, "backend_cpu_ns": f * 0.4, "cpu_ns": cpu} for f, cpu in zip(figures, own)]


class SlowedTests(unittest.TestCase):
    def test_quiet_rounds_are_none(self):
        self.assertEqual(quiet.slowed({"a": rounds(100, 105, 111), "b": rounds(50, 51, 50)}, 1.12), set())

    def test_each_relay_has_a_least_of_its_own(self):
        self.assertEqual(quiet.slowed({"a": rounds(100, 128, 100), "b": rounds(51, 50, 64)}, 1.12), {1, 2})

    def test_relay_alone_condemns_no_round(self):
        self.assertEqual(quiet.slowed({"a": rounds(100, 100, 100, relay=[50, 90, 50])}, 1.12), set())

    def test_work_that_moved_to_the_load_is_no_slowed_machine(self):
        self.assertEqual(quiet.slowed({"a": rounds(130, 100, 130, relay=[100, 180, 100])}, 1.20), set())

    def test_no_relay_has_a_cpu_of_none(self):
        self.assertEqual(quiet.slowed({"direct": rounds(100, 130, relay=[0, 0])}, 1.12), {1})

    def test_failed_relay_has_no_say(self):
        self.assertEqual(quiet.slowed({"a": [], "b": rounds(100, 130)}, 1.12), {1})


class TurnTests(unittest.TestCase):
    def test_turn_is_slowed_by_its_own_relays_earlier_ones(self):
        slow, fast = rounds(130, 101)
        self.assertTrue(quiet.is_slowed(slow, rounds(100, 104), 1.12))
        self.assertFalse(quiet.is_slowed(fast, rounds(100, 104), 1.12))
        self.assertFalse(quiet.is_slowed(slow, [], 1.12))

    def test_relay_alone_does_not_slow_it(self):
        self.assertFalse(quiet.is_slowed(*rounds(100, relay=[190]), rounds(100), 1.12))

    def test_what_was_taken_again_is_on_record(self):
        sifted = quiet.sift({"a": rounds(100, 101, 100)}, 3, 3, 1.12, {"a": rounds(130)})
        self.assertEqual((sifted.left_out, sifted.about["again"]), ({"a": rounds(130)}, 1))
        self.assertEqual(quiet.text(sifted.about), "3 rounds measured, 1 turn(s) in them taken again on a quieter machine, 0 left out")


class MoreTests(unittest.TestCase):
    def test_quiet_row_has_the_wanted_rounds(self):
        self.assertTrue(quiet.wants_more({"a": rounds(100, 100)}, 2, 3, 1.12))
        self.assertFalse(quiet.wants_more({"a": rounds(100, 100, 100)}, 3, 3, 1.12))

    def test_slowed_round_is_measured_again(self):
        self.assertTrue(quiet.wants_more({"a": rounds(100, 130, 100)}, 3, 3, 1.12))
        self.assertFalse(quiet.wants_more({"a": rounds(100, 130, 100, 101)}, 4, 3, 1.12))

    def test_twice_the_wanted_is_the_most(self):
        self.assertFalse(quiet.wants_more({"a": rounds(100, 130, 130, 130, 130, 130)}, 6, 3, 1.12))

    def test_without_a_relay_left_it_ends(self):
        self.assertFalse(quiet.wants_more({"a": []}, 3, 3, 1.12))


class SiftTests(unittest.TestCase):
    def test_slowed_round_is_left_out_for_all(self):
        results = {"a": rounds(100, 130, 101, 100), "b": rounds(50, 50, 51, 52)}
        sifted = quiet.sift(results, 4, 3, 1.12)
        self.assertEqual(sifted.kept, {n: [r[0], r[2], r[3]] for n, r in results.items()})
        self.assertEqual(sifted.left_out, {n: [r[1]] for n, r in results.items()})
        self.assertEqual(sifted.about, {"measured": 4, "slowed": [2], "left_out": 1, "again": 0})
        self.assertEqual(quiet.text(sifted.about), "4 rounds measured, 1 left out because the machine was slowed")

    def test_never_quiet_machine_keeps_all(self):
        results = {"a": rounds(100, 130, 130, 130, 100, 130)}
        sifted = quiet.sift(results, 6, 3, 1.12)
        self.assertEqual((sifted.kept, sifted.left_out), (results, {}))
        self.assertTrue(quiet.was_never(sifted.about))
        self.assertIn("never quiet: all are kept", quiet.text(sifted.about))

    def test_half_of_the_wanted_must_remain(self):
        self.assertEqual([quiet.fewest(n) for n in (1, 2, 3, 5, 6, 9, 10)], [1, 2, 3, 3, 3, 5, 5])

    def test_failed_relay_stays_failed(self):
        sifted = quiet.sift({"a": [], "b": rounds(100, 100, 130, 100)}, 4, 3, 1.12)
        self.assertEqual((sifted.kept["a"], len(sifted.kept["b"])), ([], 3))


if __name__ == "__main__":
    unittest.main()
