# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo-output

MINUTES ?= 30

.PHONY: demo test lint bench bench-ui fuzz guest lock system setup clean

## record a real guest (or replay the bundled recording), write the executed notebook and its page
demo: setup
	$(BIN)/python -m kvmperf_magic demo --output $(DEMO)

## everything that must hold: format, lint, types, tests. What is about who gets the CPU runs alone,
## the rest on two cores
test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -m alone

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

## recorder cost and reading speed, each as a ratio to perf in the same run
bench: setup
	$(BIN)/python -m bench

## how long people wait for pictures, in headless Chromium in JupyterLab
bench-ui: setup
	$(BIN)/python -m bench.ui

## hostile recordings for MINUTES (30); atheris guides the search where its wheel can be had
fuzz: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: atheris==3.0.0 \
	  || echo "fuzz: no atheris for this Python, the search is blind" >&2
	$(BIN)/python -m fuzz --minutes $(MINUTES)

## build the micro guest anew from its C
guest: setup
	$(BIN)/python -m kvmperf_magic.demo.build

## pin every package that tests and demo use
lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --all-extras --group test \
	  --python-version 3.11 --generate-hashes --no-annotate --no-header -o requirements.lock

# what pip cannot bring: only as root on Debian, and only what is missing
system:
	@PYTHON=$(PYTHON) sh .ci/system-packages

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml .ci/system-packages
	@PYTHON=$(PYTHON) sh .ci/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
