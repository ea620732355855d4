# Two commands for a newcomer: `make up` and `make test`. They need Python 3.11, make and git, nothing else.
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help up compose-up examples test chaos container-chaos contract orphans soak bench-worker bench-ttft bench-streams bench-growth bench-fanout bench-slow-viewer bench-cost bench-modes bench-peers bench-scaling bench house coverage mutation captures check docs release-check hooks format constraints clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

# --- set-up: each stamp is one finished installation, redone when what it was made from changes -------------------

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=/path/to/python3.11 ..." % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; } # half of one would pass for a whole one the next time

# Versions and hashes are checked for everything that comes from outside; our own code is then linked as it is.
$(VENV)/.installed: constraints.txt pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) ..." >&2
	@$(PIP) --require-hashes -r constraints.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: constraints-dev.txt $(VENV)/.installed
	@echo "installing what tests and checks need, the real CLI too (365 MB) ..." >&2
	@$(PIP) --require-hashes -r constraints-dev.txt
	@touch $@

# --- running -------------------------------------------------------------------------------------------------------

up: $(VENV)/.installed ## everything on this machine, ready to chat (WARMWIRE_PORT=9000 make up for another port)
	@exec $(BIN)/warmwire up

# `make example-code-review` for one of them; CLI=claude for Claude Code in place of the stand-in.
CLI ?= emulator
EXAMPLES := microservice code-review code-extraction collaborative react

examples: $(EXAMPLES:%=example-%) ## every example, one after the other (examples/README.md); React needs Chromium

example-%: $(VENV)/.installed
	$(BIN)/python -m examples.$(subst -,_,$*) --cli '$(CLI)'

example-react: $(VENV)/.installed-dev # Node, and what drives a browser

compose-up: ## the same as containers, with three NATS servers, nginx, Prometheus; needs Docker (docs/deployment.md)
	@PATH="$(CURDIR)/$(BIN):$$PATH" compose/up

# Most tests wait most of the time, so several run at once; JOBS=0 runs them one after the other. One that fails in this
# crowd is tried once more by itself, and must pass then.
JOBS ?= 4
AGAIN = { [ $$? -eq 1 ] && echo "once more, one after the other:" >&2 && $(BIN)/python -m pytest --last-failed --maxfail 10; }

test: $(VENV)/.installed-dev ## every test (JOBS=0 for one after the other)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal || $(AGAIN)

chaos: $(VENV)/.installed-dev ## processes and networks die under load; takes some minutes (docs/reference/chaos.md)
	$(BIN)/python -m tests.system.chaos

contract: $(VENV)/.installed-dev ## does the installed CLI keep what we rely on? if so, its version counts as tested
	$(BIN)/python -m tests.worker.contract

container-chaos: $(VENV)/.installed-dev ## the Compose stack under load: servers stop, scale, upgrade; needs Docker (docs/deployment.md)
	$(BIN)/python -m tests.containers.chaos

orphans: $(VENV)/.installed-dev ## each way to die, and the processes left two seconds later (docs/orphans.md)
	$(BIN)/python -m tests.worker.orphans

soak: $(VENV)/.installed-dev ## 10,000 turns over 200 sessions on 50 processes: does a worker grow? (docs/benchmarks.md)
	$(BIN)/python -m bench.soak

bench-worker: $(VENV)/.installed-dev ## a worker's memory per session and CPU per delta (docs/benchmarks.md)
	$(BIN)/python -m bench.worker

bench-ttft: $(VENV)/.installed-dev ## time to the first delta, cold, adopted, pinned, frozen, parked (docs/benchmarks.md)
	$(BIN)/python -m bench.ttft

bench-streams: $(VENV)/.installed-dev ## how late each delta is and what it costs, next to a floor and a baseline; needs cc
	$(BIN)/python -m bench.streams

bench-growth: $(VENV)/.installed-dev ## the same rate over 100 to 2000 streams, with plots; ten minutes (docs/benchmarks.md)
	$(BIN)/python -m bench.growth --svg docs/images

bench-fanout: $(VENV)/.installed-dev ## what a delivered event costs the edge: 1 session with 1000 viewers, 1000 with one each
	$(BIN)/python -m bench.fanout

bench-slow-viewer: $(VENV)/.installed-dev ## a viewer at 1 byte a second beside 50 others: memory, their delays, its text
	$(BIN)/python -m bench.slow_viewer

bench-cost: $(VENV)/.installed-dev ## CPU per delta with tracing and metrics on, to that with both off; needs cc
	$(BIN)/python -m bench.cost

bench-scaling: $(VENV)/.installed-dev ## a day, a burst, a lost node in virtual time: how many workers, and when (docs/scaling.md)
	$(BIN)/python -m bench.scaling --svg docs/images

bench-modes: $(VENV)/.installed-dev ## streamed or the whole answer at once, at 100 requests a second; needs cc
	$(BIN)/python -m bench.modes

bench-peers: $(VENV)/.installed-dev ## ours next to pushpin, resumable-stream, sse-starlette, LiteLLM; says what is missing
	$(BIN)/python -m bench.peers --install

# Everything that is measured, one after the other: about half an hour. Each says by its exit code whether its aims hold.
bench: $(VENV)/.installed-dev ## every benchmark, with tables and JSON in bench/results; needs cc and a quiet machine
	@mkdir -p bench/results
	@for what in streams growth modes idle replay fanout slow_viewer cost worker ttft scaling scaling_sizes; do \
		echo "== $$what"; $(BIN)/python -m bench.$$what --json bench/results/$$what.json || failed="$$failed $$what"; \
	done; \
	echo "== peers"; $(BIN)/python -m bench.peers --allow-missing --json bench/results/peers.json || failed="$$failed peers"; \
	[ -z "$$failed" ] || { echo "bench: not within their aims:$$failed" >&2; exit 1; }

check: $(VENV)/.installed-dev ## linters, types, import rules, generated pages and the site
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/.installed-dev ## the site, into site/; a link or an anchor that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

release-check: $(VENV)/.installed-dev ## wheel and sdist into dist/, then `warmwire up` of the wheel in an empty environment
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist >/dev/null
	$(BIN)/python -m tests.release dist

# --- upkeep --------------------------------------------------------------------------------------------------------

house: $(VENV)/.installed-dev ## the code in figures: sizes, copies, ignores; before and now (docs/house.md)
	$(BIN)/python docs/house.py $(if $(wildcard coverage.json),--coverage coverage.json) $(if $(wildcard mutation.json),--mutation mutation.json)

# Branches, and every Python process that the tests start; their files are put together at the end.
coverage: $(VENV)/.installed-dev ## every test, and what they do not reach (docs/house.md); a quarter of an hour
	rm -f .coverage .coverage.* coverage.json
	WARMWIRE_TEST_SECONDS=3 $(BIN)/coverage run -m pytest -n $(JOBS) --dist worksteal || { [ $$? -eq 1 ] && WARMWIRE_TEST_SECONDS=3 $(BIN)/coverage run -m pytest --last-failed; }
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet
	$(BIN)/coverage report

mutation: $(VENV)/.installed-dev ## small changes to the pure modules: do their tests notice? about ten minutes (docs/house.md)
	$(BIN)/python -m tests.mutation --json mutation.json

captures: $(VENV)/.installed-dev ## pictures of the page, of `top` and of traces anew, from real runs; needs Chromium (docs/images)
	$(BIN)/python -m docs.captures

format: $(VENV)/.installed-dev ## the house format, and the reference pages from the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python docs/generate.py

hooks: $(VENV)/.installed-dev ## git runs the linters before a commit, and `make check` before a push
	@$(BIN)/pre-commit install

# Refreshes every version; the index that you use must be the public one, its name is not recorded.
COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-config

constraints: $(VENV)/.installed-dev ## newest versions and their hashes into constraints*.txt
	CUSTOM_COMPILE_COMMAND="make constraints" $(COMPILE) --all-build-deps --extra all \
		--output-file constraints.txt pyproject.toml
	CUSTOM_COMPILE_COMMAND="make constraints" $(COMPILE) --extra worker --extra edge --extra compose --extra dev \
		--extra claude --constraint constraints.txt --output-file constraints-dev.txt pyproject.toml

clean: ## everything that was built or cached, the virtual environment too
	rm -rf $(VENV) dist .coverage coverage.json mutation.json site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
