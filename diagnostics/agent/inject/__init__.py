"""The start-up hook: gives a Python service that knows nothing of Highwater an agent, under a private name.

`diagnostics run` puts the folder `path/` first on PYTHONPATH; its sitecustomize calls `activate` in every Python process
that CMD starts. Most of them are not servers: an agent is started only once a process listens on a TCP port.
"""
