"""The routes: how requests are read, how they are answered, how errors become responses, and the drain."""
