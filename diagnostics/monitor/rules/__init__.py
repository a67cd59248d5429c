"""Rules: what is watched, when it counts, what is done then, and how often at most.

    triggers, expression      what a rule may watch
    rule, engine, limits      when it fires; pure: time is given to them, never asked
    keys, rule_file, lines    the TOML file, and its faults with their lines
    schema                    its JSON schema, made from the same tables
    trusted, references       who can write the file, and whether what it names is there
    limits_file               what must outlive this process
    actions/                  what is done when one fires

Where the values come from is `judging.watched`; `judging.guard` puts all of it to work.
"""
