"""Benchmarks: ``python -m pytest benchmarks`` and the modules that ``scripts/benchmark_core.py`` shares."""
