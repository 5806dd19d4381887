# `make run` shows it at work, `make test` tests it. Both make .venv and build what they need first.
# PYTHON says which interpreter makes .venv; ARGS goes to pytest, to the demo, or to the bench.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(shell find pooledhttp -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
# What pyproject.toml pins for building.
REQUIRES := $(shell sed -n 's/^requires = \[\(.*\)\]$$/\1/p' pyproject.toml | tr -d ',')
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test build stress soak asan asan-quick valgrind valgrind-quick test-http2 test-http2-quick test-pythons upstream-suites bench bench-docs bench-quick bench-variants counted counted-update profile debug lint types stubs gates annotate dist wheel clean help
.DELETE_ON_ERROR:

help:
	@echo 'make run       three microservices called a hundred times a second (about half a minute)'
	@echo 'make test      all tests'
	@echo 'make build     .venv and the compiled modules'
	@echo 'make bench-quick   this client against others on one nginx (two minutes on a quiet machine)'
	@echo 'make bench     every scenario, beside all other clients, with pictures (less than 25 minutes)'
	@echo 'make stress    64 threads, 1.28 million requests, servers that break (ten minutes); make soak: for an hour'
	@echo 'make upstream-suites   the own tests of requests and httpx, over our adapters (three minutes)'
	@echo 'make counted   instructions, system calls and bytes against their budget (a quarter of a minute)'
	@echo 'make asan      tests with AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer; make valgrind: the parser under memcheck'
	@echo 'make wheel     a wheel that carries libnghttp2, into dist/'
	@echo 'make test-http2    the client'\''s suite once more, over HTTP/2 (five minutes; make test-http2-quick: one)'
	@echo 'make test-pythons  the wheel built and tested on each CPython of 3.10 to 3.13 that is here'
	@echo 'make gates     all tests, lint, types, stubs: what continuous integration runs'
	@echo 'make lint, types, stubs, annotate, debug, dist, clean, bench-docs, bench-variants, profile'

run: $(VENV)/built
	@$(BIN)/python -m examples.microservices $(ARGS)

test: $(VENV)/built $(VENV)/test
	$(BIN)/python -m pytest $(ARGS)

build: $(VENV)/built

# Everything, with pictures. OUT says where to.
OUT ?= bench/results
bench: $(VENV)/built $(VENV)/bench-full
	@$(BIN)/python -m bench --json $(OUT)/figures.json --pictures $(OUT) $(ARGS)

# The tables in docs/performance.md, and the pictures, from figures measured before.
bench-docs: $(VENV)/built $(VENV)/bench-full
	@$(BIN)/python -m bench --docs $(OUT)/figures.json
	@$(BIN)/python -m bench --from $(OUT)/figures.json --pictures $(OUT)

# See docs/testing.md. ARGS=--help names what can be set.
stress: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m tests.stress $(ARGS)

soak: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m tests.stress --requests 5000 --minutes 60 $(ARGS)

# Memory safety: see docs/testing.md. ARGS goes to pytest.
asan: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m tests.safety.asan -q $(ARGS)

asan-quick: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m tests.safety.asan --quick -q $(ARGS)

valgrind: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m tests.safety.memcheck -q $(ARGS)

valgrind-quick: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m tests.safety.memcheck --quick -q $(ARGS)

# The client's suite once more with clients that speak HTTP/2 to the same servers behind a front; what is left out: tests/support/over_http2.py.
test-http2: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m pytest --http2 -q $(ARGS)

test-http2-quick: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m pytest --http2 -q tests/adapters tests/api tests/attack tests/metrics $(ARGS)

# The wheel on every CPython that is here; WANTED="3.10 3.13" names some. ARGS goes to pytest.
test-pythons: $(VENV)/test
	@PYTHON=$(BIN)/python .ci/test-pythons -q $(ARGS)

# The own tests of requests and httpx, from PyPI, over our adapters; docs/adapters.md says what comes of it. ARGS=requests, or httpx: the one alone.
upstream-suites: $(VENV)/built $(VENV)/upstream/ready
	@$(VENV)/upstream/bin/python -m tests.upstream $(ARGS)

bench-quick: $(VENV)/built $(VENV)/bench
	@$(BIN)/python -m bench --quick $(ARGS)

# The ways to use each peer, against each other: the comparison runs the fastest.
bench-variants: $(VENV)/built $(VENV)/bench-full
	@$(BIN)/python -m bench --quick --variants $(ARGS)

# What does not depend on how busy the machine is, against bench/budgets.json; counted-update makes that file say what is counted now.
counted: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m bench.counted $(ARGS)

counted-update: $(VENV)/built $(VENV)/test
	@$(BIN)/python -m bench.counted --update $(ARGS)

# Where our client's time goes; needs perf (Debian: linux-perf). SCENARIO as in `python -m bench --list`.
SCENARIO ?= plain-16
profile: $(VENV)/built
	@$(BIN)/python -m bench --profile $(SCENARIO) $(ARGS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint pooledhttp        # it calls pycodestyle by name

types: $(VENV)/built $(VENV)/dev
	$(BIN)/mypy
	$(BIN)/python .ci/pyright.py

stubs: $(VENV)/built $(VENV)/dev
	$(BIN)/python .ci/stubs.py

gates:
	.ci/run

# Cython's annotated HTML beside each .pyx: the yellow lines touch Python.
annotate: $(VENV)/built
	POOLEDHTTP_ANNOTATE=1 $(BIN)/python setup.py --quiet build_ext --inplace --force

# The compiled modules with the assertions of the locking rules; `make build` after `touch setup.py` takes them out again.
debug: $(VENV)/built
	POOLEDHTTP_DEBUG=1 $(BIN)/python setup.py --quiet build_ext --inplace --force

dist: $(VENV)/built $(VENV)/test
	$(BIN)/python -m build

# The wheel to give away: built from the sdist, with libnghttp2 inside.
wheel: $(VENV)/test
	@PYTHON=$(BIN)/python .ci/wheel dist

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find pooledhttp \( -name '*.c' -o -name '*.so' -o -name '*.html' \) -delete

# Stamps: what is up to date is not done again.
$(VENV)/base: pyproject.toml .ci/system
	@PYTHON='$(PYTHON)' .ci/system build
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install $(REQUIRES)
	$(PIP) install --no-build-isolation --editable '.[build,run]'
	@touch $@

$(VENV)/built: $(COMPILED) setup.py $(VENV)/base
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/test: $(VENV)/base
	@PYTHON='$(PYTHON)' .ci/system test
	$(PIP) install --no-build-isolation --editable '.[test]'
	@touch $@

$(VENV)/bench: $(VENV)/base
	@PYTHON='$(PYTHON)' .ci/system bench
	$(PIP) install --no-build-isolation --editable '.[bench]'
	@touch $@

# niquests lives apart: it overwrites urllib3.
$(VENV)/bench-full: $(VENV)/bench
	@PYTHON='$(PYTHON)' .ci/system bench-full
	$(PIP) install --no-build-isolation --editable '.[bench-full]'
	$(PYTHON) -m venv --clear $(VENV)/niquests
	$(VENV)/niquests/bin/python -m pip --disable-pip-version-check --quiet install 'niquests>=3.14'
	@touch $@

# Apart too: their plugins are not for our tests.
$(VENV)/upstream/ready: tests/upstream/requirements.txt $(VENV)/base
	$(PYTHON) -m venv --clear $(VENV)/upstream
	$(VENV)/upstream/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<
	@touch $@

$(VENV)/dev: $(VENV)/base
	$(PIP) install --no-build-isolation --editable '.[dev]'
	@touch $@
