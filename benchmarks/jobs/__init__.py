"""What runs in a process of a tree, one module each; ``benchmarks.workers`` starts them.

The tree may be another revision: these modules, and what they import, use public names of diptych and of the
demonstration, and nothing else.
"""
