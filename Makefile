# One word per task. Everything is installed below this folder; nothing is asked of the machine but Python 3.11+ and make.
PYTHON ?= python3
FOCUS_PYTHON ?= >=3.12,<3.14
VENV := .venv
BIN := $(VENV)/bin
# Where it is set, each process compiles all that it imports anew: two seconds of processor time for a shard's.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup up demo test test-long sim chaos bench bench-long bench-peers bench-engine bench-check bench-door bench-dedup bench-takeover bench-checkpoint bench-cost validate-focus lint lock

help:
	@echo "make setup   install everything below this folder"
	@echo "make up      keep a whole deployment running here, with a customer and a key to try it; Ctrl-C stops it"
	@echo "make demo    run the main job for about two minutes, kill a shard, check every amount (TRACE=path to replay your own trace)"
	@echo "make test    the whole suite, on a real broker, database and Ray"
	@echo "make test-long  the proofs that take many minutes: 100,000 checks against nearly empty wallets while owners die"
	@echo "make sim     seeds of the simulation under faults, on all cores: SEEDS=100000 START=0 JOBS=2; figures to build/sim.json"
	@echo "make chaos   kill, pause, cut off and fill the disks of real deployments under load and check every amount (KILLS=100 PAUSES=20 COMMITS=40 EVENTS=1000000 SEED=1; ONLY=kills, pauses, cuts, disk or packets); figures to build/chaos.json"
	@echo "make bench   one shard to saturation, checks over HTTP and at a door, webhooks, patterns that a user would build instead, scale; all checked by the oracle; figures to build/bench.json, plots to build/bench.html (ARGS=--smoke: in short)"
	@echo "make bench-long  two hours of hot, bursty, late and doubled traffic, every amount checked at the end (ARGS='--hours 8 --rate 100'); figures to build/bench-long.json"
	@echo "make bench-peers  LiteLLM's budget path and our engine in one process, same prompt and price; figures to build/bench-peers.json"
	@echo "make bench-engine  what rating an event costs beside a bare decode of it, and what a customer takes; figures to build/bench-engine.json"
	@echo "make bench-check  what a check costs, beside a no-op endpoint and an echo; figures to build/check.json"
	@echo "make bench-door  what a check takes of a shard's processor, beside an echo of the same frames; figures to build/bench-door.json"
	@echo "make bench-dedup  what the memory of rated events costs with 50 million identities in it; figures to build/bench-dedup.json"
	@echo "make bench-cost  what cost attribution misallocates beside other ways, that no pico is lost, its speed, and how soon a cost is seen; figures to build/bench-cost.json"
	@echo "make bench-takeover  how long callers wait after kills, in moves, after a cold start; figures to build/bench-takeover.json"
	@echo "make bench-checkpoint  what checkpoints cost the rate; figures to build/bench-checkpoint.json"
	@echo "make validate-focus  hold the FOCUS exports against the public validator, where a Python from 3.12 on is found"
	@echo "make lint    style, types and import direction"
	@echo "make lock    write requirements/ anew from pyproject.toml"

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/bootstrap.txt requirements/lock.txt pyproject.toml sdk/pyproject.toml sdk/served/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tallygate needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) # one that is there keeps its interpreter
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . --editable sdk --editable sdk/served
	@touch $@

up: setup
	$(BIN)/tallygate up

demo: setup
	$(BIN)/tallygate demo

test: setup lint
	$(BIN)/python -m pytest -m "not long and not servers" --numprocesses auto --dist worksteal --durations 20
	$(BIN)/python -m pytest -m "not long and servers" --numprocesses 2 --dist loadfile --durations 20

chaos: setup
	$(BIN)/python -m loadtest.chaos --kills $(or $(KILLS),100) --events $(or $(EVENTS),1000000) --seed $(or $(SEED),1) \
		--pauses $(or $(PAUSES),20) --commits $(or $(COMMITS),40) $(if $(ONLY),--only $(ONLY))

bench-takeover: setup
	$(BIN)/python -m loadtest.takeover_bench $(ARGS)

bench-checkpoint: setup
	$(BIN)/python -m loadtest.checkpoint_bench $(ARGS)

bench: setup $(VENV)/.bench-ready
	$(BIN)/python -m loadtest.bench $(ARGS)

bench-long: setup
	$(BIN)/python -m loadtest.bench.soak $(ARGS)

bench-peers: setup $(VENV)/.bench-ready build/peers/.ready
	$(BIN)/python -m loadtest.peers --python build/peers/bin/python $(ARGS)

build/peers/.ready: requirements/peers.txt $(VENV)/.ready
	$(BIN)/python -m venv build/peers
	$(BIN)/uv pip install --quiet --python build/peers/bin/python --require-hashes -r requirements/peers.txt
	@touch $@

# What is measured beside ours; not of the product's lock.
$(VENV)/.bench-ready: requirements/bench.txt $(VENV)/.ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/bench.txt
	@touch $@

bench-engine: setup
	$(BIN)/python -m loadtest.engine_bench $(ARGS)

bench-check: setup
	$(BIN)/python -m loadtest.check_bench $(ARGS)

bench-door: setup
	$(BIN)/python -m loadtest.door_bench $(ARGS)

bench-cost: setup
	$(BIN)/python -m loadtest.cost_bench $(ARGS)

bench-dedup: setup
	$(BIN)/python -m loadtest.dedup_bench $(ARGS)

# The validator needs a newer Python than we do, and other versions of what we need.
validate-focus: setup build/focus/.ready
	FOCUS_VALIDATOR=build/focus/bin/focus-validator $(BIN)/python -m pytest tests/actors/focus/test_validator.py

build/focus/.ready: requirements/focus.txt $(VENV)/.ready
	@$(BIN)/uv venv --quiet --clear --no-python-downloads --python '$(FOCUS_PYTHON)' build/focus || { echo "the validator of FOCUS needs Python 3.12 or 3.13: set FOCUS_PYTHON to one" >&2; exit 1; }
	$(BIN)/uv pip install --quiet --python build/focus/bin/python --require-hashes -r requirements/focus.txt
	@touch $@

test-long: setup
	$(BIN)/python -m pytest -m long

sim: setup
	$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),1000) --start $(or $(START),0) $(if $(JOBS),--jobs $(JOBS)) --report build/sim.json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lock: setup
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 requirements/bootstrap.in --output-file requirements/bootstrap.txt
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 pyproject.toml sdk/pyproject.toml sdk/served/pyproject.toml --extra dev --extra stack --output-file requirements/lock.txt
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 --group bench --constraint requirements/lock.txt --output-file requirements/bench.txt
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 --group peers --output-file requirements/peers.txt
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.12 --group focus --output-file requirements/focus.txt
