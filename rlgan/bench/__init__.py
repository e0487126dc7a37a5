"""Comparisons of runs: statistics over seeds and envs, and tables of results."""
