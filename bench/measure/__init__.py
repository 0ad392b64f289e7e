"""What the benchmarks share: cases, the two sides, figures."""
