"""What ctxcheck costs: ``python -m benchmarks`` prints one table of ratios (see README.md)."""
