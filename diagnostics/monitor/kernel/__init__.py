"""What the kernel tells of processes, from /proc, cgroups and sockets; it knows no agent."""
