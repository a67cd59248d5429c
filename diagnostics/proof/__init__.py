"""Proof: a broken and a fixed subject under the same workload, and a statistical decision."""
