"""The parts of bench.py: relays, measurements, workloads, report."""
