# Two commands do all the set-up: `make demo` and `make test`. Each makes .venv first if it is missing or out of date.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# The tests start some thousand processes; without compiled files each of them would compile all that it imports of ours.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: bench bench-quick bounds chaos chaos-seeds clean demo field fuzz fuzz-parsers imports install installs lint long matrix museum museum-table phoenix \
	relay-proof replicas sanic simulate soak steady study test types unit wheel

demo: $(STAMP)
	$(BIN)/python -m diagnostics demo

test: lint types imports unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

# AGAIN=yes: where tests have failed, and nothing worse, they are run once more, alone. A fault fails both times; what passes then is
# named, and is a test that goes by the machine's load. For machines that nobody knows: on one's own the first failure counts.
# $(1): how the runs ended; $(2): which tests they had.
again = case "$(AGAIN):$(1)" in *:0:0) ;; yes:[01]:[01]) echo 'once more, alone:'; \
	$(BIN)/python -m pytest $(2) --last-failed --last-failed-no-failures none -p no:xdist -v ;; *) exit 1 ;; esac

# Tests that look at all objects of their own process are run first: a process that has imported all other tests has several times
# as many. Most of the others wait for processes and sockets: with two at a time two cores are half idle, with six they are busy.
WHOLE_HEAP = tests/diagnostics/agent/readings
SHORT = tests --ignore=tests/bench -m 'not install and not long'
unit: $(STAMP)
	@$(BIN)/python -m pytest $(WHOLE_HEAP) --numprocesses 4 --dist worksteal; first=$$?; \
	$(BIN)/python -m pytest $(SHORT) --ignore=$(WHOLE_HEAP) --numprocesses 6 --dist worksteal; second=$$?; \
	$(call again,$$first:$$second,$(SHORT))

# The tests that take longest, some minutes in all: experiments with real services and allocators, alerts in a real Prometheus,
# replicas that are killed, instructions counted by valgrind, other versions of memray.
LONG = tests --ignore=tests/bench -m 'not install and long'
long: $(STAMP)
	@$(BIN)/python -m pytest $(LONG) --numprocesses 4 --dist worksteal; ended=$$?; $(call again,$$ended:0,$(LONG))

# The wheel with each of its extras in empty environments of every Python that is found, and all commands of the README in their
# order: tens of minutes. INSTALLS chooses some of it: 'python3.12-', or 'python3.11-base] or python3.11-readme]'.
INSTALLS ?=
installs: $(STAMP)
	$(BIN)/python -m pytest tests/installs -m install $(if $(INSTALLS),-k '$(INSTALLS)') --numprocesses 2 --dist worksteal

# The one file that is installed where there is no checkout.
wheel:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -f dist/*.whl
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

# The suite ten times, each in other surroundings; hours. Writes the table of CONTRIBUTING.md; goes on where it was.
steady: $(STAMP)
	$(BIN)/python tests/steady.py $(STEADY)

# On a quiet machine; rewrites docs/performance.md and performance.json, and prints each limit and whether it is met. Three rounds take
# an hour and more. LITELLM is a folder that LiteLLM's proxy is or will be installed in; without it that peer is left out.
# bench-quick: a few cases, a minute or two.
ROUNDS ?= 3
bench: $(STAMP)
	$(BIN)/python tests/bench/bench_relay.py --rounds $(ROUNDS) $(if $(LITELLM),--litellm $(LITELLM)) --out report/bench --write docs/performance.md

bench-quick: $(STAMP)
	$(BIN)/python tests/bench/bench_relay.py --quick --out report/bench

# What 1,000 peers of each kind can make the relay hold, and 10,000 idle connections; ten minutes. Writes docs/reliability.md.
bounds: $(STAMP)
	$(BIN)/python tests/bench/bench_bounds.py --write docs/reliability.md

# Campaigns of chaos: mixes of all kinds of clients and of answers, many on one relay, and small ones beside which something happens to
# the machine; an hour (SECONDS). Goes on where it was (tests/chaos/campaigns/record.json) and writes the table of docs/reliability.md.
# Where other work keeps the machine busy: CHAOS_PATIENCE=3 make chaos, which has all deadlines three times as long.
SEEDS ?= 1000
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos.campaigns --jobs $(or $(JOBS),2) --seconds $(or $(SECONDS),3600) --write docs/reliability.md

# Seeds of chaos, each with clients, answers and events that it draws: some seconds each; goes on where it was when it is started
# again, and writes a table of docs/reliability.md of all that were run so far. SECONDS=3600: begin none after an hour.
chaos-seeds: $(STAMP)
	$(BIN)/python -m tests.chaos --seeds $(SEEDS) --jobs $(or $(JOBS),2) $(if $(SECONDS),--seconds $(SECONDS)) --write docs/reliability.md

# Two replicas behind nginx, 200 streams a seed, each cut off three times; a replica is killed, one drained, Redis restarted: half a
# minute each. Goes on where it was; writes the table of docs/reliability.md. SECONDS=3600: begin none after an hour. CLUSTERS=2: two
# at the same time, as most of a seed is waiting.
replicas: $(STAMP)
	$(BIN)/python -m tests.replicas --seeds $(SEEDS) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(CLUSTERS),--clusters $(CLUSTERS)) --write docs/reliability.md

# The mix of chaos at half load, with a capture a minute: slopes of memory, descriptors and tasks into docs/reliability.md.
soak: $(STAMP)
	$(BIN)/python -m tests.chaos.soak --seconds $(or $(SECONDS),600) --write docs/reliability.md

# The relay's parsers against second implementations, with atheris and at random; what fails is kept in tests/parsers/corpus.
# SECONDS=3600: each of the four for so long.
fuzz-parsers: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement tests/parsers/requirements.txt
	$(BIN)/python -m tests.parsers sse $(or $(SECONDS),60)
	$(BIN)/python -m tests.parsers http $(or $(SECONDS),60)
	$(BIN)/python -m tests.parsers sse $(or $(SECONDS),60) --at-random
	$(BIN)/python -m tests.parsers http $(or $(SECONDS),60) --at-random
	$(BIN)/python -m tests.fuzz.tally docs/reliability.md

# Seeds of the relay on a simulated event loop, whose bytes are counted after every step; writes docs/reliability.md. Goes on
# where it was (tests/simulation/record.json). In an environment of its own, with Python 3.12 or later (SIMULATOR). SECONDS=3600: longer.
# The first of them that runs: pyenv's python3.12 may be there, and no Python behind it.
SIMULATOR ?= $(shell for python in python3.13 python3.12 $(HOME)/.pyenv/versions/3.1[23].*/bin/python; do \
	$$python -c '' 2>/dev/null && command -v $$python && break; done)
SIMULATION = .simulation/$(shell $(SIMULATOR) -c 'import platform; print(platform.python_version())')
simulate:
	@test -n "$(SIMULATOR)" || { echo "the simulator needs Python 3.12 or later: make simulate SIMULATOR=/path/to/python3.12"; exit 1; }
	@$(MAKE) --no-print-directory $(SIMULATION)/.installed
	$(SIMULATION)/bin/python -m tests.simulation --jobs $(or $(JOBS),2) --seconds $(or $(SECONDS),60) --write docs/reliability.md

.simulation/%/.installed: tests/simulation/requirements.txt constraints.txt
	test -x $(@D)/bin/python || $(SIMULATOR) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement $< --editable '.[all]'
	@touch $@

# The relay as a third subject of every scenario; about ten minutes.
relay-proof: $(STAMP)
	$(BIN)/python -m diagnostics verify --relay relay/proof.toml --no-capture

# Hours: every scenario again and again, and apps that must never be accused. Goes on where it was when it is started again.
STUDY ?= study
study: $(STAMP)
	$(BIN)/python -m diagnostics.proof.study $(STUDY)

# Sanic asks for an older multidict than aiohttp: its tests start it in an environment of its own (ten seconds), one for each Python.
SANIC = .sanic/$(shell $(PYTHON) -c 'import platform; print(platform.python_version())')
sanic:
	@$(MAKE) --no-print-directory $(SANIC)/.installed

.sanic/%/.installed: tests/sanic-requirements.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

# The suite on every CPython that can be had here (PATH, pyenv, or a Debian made by debootstrap, as root); says which could not, and
# why, and writes the table of docs/versions.md where it ran the whole suite. VERSIONS="3.12 3.14", TESTS="tests/relay", MATRIX=--demo
VERSIONS ?=
TESTS ?=
MATRIX ?=
matrix:
	$(PYTHON) tests/matrix/run.py $(if $(VERSIONS),--versions "$(VERSIONS)") $(if $(TESTS),--tests "$(TESTS)") $(if $(TESTS),,--write docs/versions.md) $(MATRIX)

# Public services from PyPI, by `diagnostics run` and by themselves: at most five minutes each once they are installed (4 GB, kept
# outside of the checkout). Goes on where it was when it is started again; writes docs/field.md. ONLY="litellm sanic": some; on a
# machine with much other work SECONDS=400 for each.
field: $(STAMP)
	$(BIN)/python -m tests.field $(if $(SECONDS),--seconds $(SECONDS)) $(ONLY)

# Real leaks by pinned releases from PyPI, the releases that mended them, and healthy services that look ill: three minutes each, once
# they are installed (outside of the checkout). Goes on where it was; writes docs/museum.md once all are seen. ONLY="sse-starlette": some;
# TOGETHER=3: three at a time.
museum: $(STAMP)
	$(BIN)/python -m tests.museum $(if $(TOGETHER),--together $(TOGETHER)) $(ONLY)

# How often each verdict was right, into docs/verdict.md, of the visits that tests/museum/results.json has. Seconds; no visit.
museum-table: $(STAMP)
	$(BIN)/python -m tests.museum --table

# Mangled inputs for every reader of what a peer wrote, a minute each (SECONDS, READER); guided by coverage where atheris is
# installed. What a reader does not bear is kept in tests/fuzz/corpora.
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(READER),--reader $(READER))
	$(BIN)/python -m tests.fuzz.tally docs/reliability.md

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(wildcard diagnostics/agent/native/*.py diagnostics/agent/native/*/*)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Highwater needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
# An environment from when the distribution was named highwater would show pytest the same plugin twice.
	@$(BIN)/python -m pip uninstall --quiet --quiet --disable-pip-version-check --yes highwater
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# A server that receives OTLP, for one test, in an environment of its own (850 MB; without bytecode, which most of it never
# needs, it is made in half the time).
phoenix: .phoenix/.installed

.phoenix/.installed: tests/phoenix-requirements.txt
	test -x .phoenix/bin/python || $(PYTHON) -m venv .phoenix
	.phoenix/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --requirement $<
	@touch $@

clean:
	rm -rf .phoenix .sanic .sanic.lock .simulation $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
