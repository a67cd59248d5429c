"""Reads processes from /proc, cgroups and the kernel's socket tables, without an agent."""
