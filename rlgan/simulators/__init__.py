"""Simulators that live on the CPU: one group as rows of NumPy arrays, and who ends the run when one hangs."""
