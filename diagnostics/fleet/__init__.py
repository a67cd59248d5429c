"""Many monitors at once: where they are, what each says, and which of them is not as the others.

`targets` turns words of the command line into addresses, `replicas` is the pure part: rows and the odd one out.
"""
