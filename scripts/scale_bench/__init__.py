"""The parts of bench_scale: each runs in a process of its own and prints JSON."""
