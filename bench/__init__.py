"""The benchmarks: `python -m bench` measures the product and its rivals in one run."""
