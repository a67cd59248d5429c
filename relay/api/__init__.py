"""The routes: what is read from a request, what is answered, how errors are told."""
