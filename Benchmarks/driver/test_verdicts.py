import unittest

from . import verdicts


def results(timed, **more):
    return {"timed": timed, "idle": {}, "flatness": {}, "workers": {}, "egress": {}, "counts": {}, "machine": {}, **more}


def cpu(value):
    return [{"cpu_ns": value, "p99": 1}] * 3


class HAProxiesTests(unittest.TestCase):
    row = {"rtt-64-64": {"haproxy": cpu(100), "3.5": cpu(80), "pipelined": cpu(90)}}

    def judged(self, found):
        return {v["target"]: v["met"] for v in verdicts.verdicts(found) if v["target"].startswith("cpu: ")}

    def test_each_has_a_verdict(self):
        self.assertEqual(self.judged(results(self.row, haproxies=["haproxy", "3.5"])), {"cpu: rtt-64-64": True, "cpu: rtt-64-64, by 3.5": False})

    def test_figures_of_an_earlier_run_name_none(self):
        self.assertEqual(self.judged(results(self.row)), {"cpu: rtt-64-64": True})

    def test_failed_one_has_none(self):
        failed = {"rtt-64-64": {**self.row["rtt-64-64"], "3.5": []}}
        self.assertEqual(self.judged(results(failed, haproxies=["haproxy", "3.5"])), {"cpu: rtt-64-64": True})

    def test_egress_names_the_floor(self):
        row = {"rtt-64-64": {"haproxy": cpu(100), "egress-plain": cpu(90), "egress-account": cpu(90), "floor": cpu(88)}}
        found = {v["target"]: v for v in verdicts.verdicts(results({}, egress=row))}
        self.assertFalse(found["egress: rtt-64-64"]["met"])
        self.assertIn("the floor has 0.88", found["egress: rtt-64-64"]["text"])


if __name__ == "__main__":
    unittest.main()
