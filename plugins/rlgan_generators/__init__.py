"""Generators that ship with rlgan, declared as any third party declares its own."""
