"""Data sets that ship with rlgan or come inside packages, declared as any third party declares its own."""
