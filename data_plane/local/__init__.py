"""Local servers and a local engine, so that the program runs where there is nothing but Python.

Nothing in ``components/`` imports this package: the program does not know where, or by what, it is run.
"""
