"""Egress: finished captures, and the recordings of workers that ended badly, copied to an object store or a folder.

`destination`, `queue` and `manifest` are pure; `spool` is the queue's file, `store` the adapter to obstore, `egress` what runs.
Nothing of this folder imports obstore before a destination is set.
"""
