"""Many monitors at once: their addresses, their answers, and the replica that differs from the others.

`targets` turns words of the command line into addresses, `replicas` is the pure part: rows and outliers.
"""
