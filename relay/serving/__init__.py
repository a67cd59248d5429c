"""Processes, sockets and signals: the server, its workers and their supervisor."""
