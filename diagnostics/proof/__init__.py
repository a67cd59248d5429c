"""Proof: a broken and a fixed subject under the same workload, and a decision with statistics."""
