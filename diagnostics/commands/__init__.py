"""One module a command. Each has `configure(parser)` and `run(arguments) -> exit code`.

`cli.COMMANDS` is the table of them; a module is imported only when its command is asked for.
"""
