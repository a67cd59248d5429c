"""What is done when a rule fires, beside a capture: one file each.

    messages     the bodies of webhooks in their shapes, and the signature; pure
    webhook      one POST with its attempts
    command      one program with its limits; `confined` sets them in its process
    deliveries   the bounded queue of both

A further action is a dataclass in `rule.py`, its keys in `keys.py`, its reading in `rule_file.py`, a file here, and one entry
in `deliveries.py`.
"""
