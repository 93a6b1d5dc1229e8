"""The parts of `scripts/bench_cohort.py`."""
