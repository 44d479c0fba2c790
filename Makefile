# Two commands do all: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
NEWER ?= python3.12
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Compile as for users: tests alone would save LLVM's time.
OPTIMISED := JAX_DISABLE_MOST_OPTIMIZATIONS=false

.PHONY: demo test test-all mutants nightly theory variance bench lint clean

demo: $(READY)  ## the table of the embedded digits, with its report
	$(BIN)/python -m tsla sweep --table=configs/sweeps/digits.py \
	  --workdir=demo/digits --seeds=3 --jobs=2 --config.data.path=demo/data
	@echo "Open demo/digits/report.html. Next: $(BIN)/python main.py --help"

test: $(READY)  ## the fast tests, on the CPU
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not ci"

test-all: $(READY)  ## every test; the fast ones again on $(NEWER), newest jax
	$(OPTIMISED) $(BIN)/python -m pytest -n auto --dist loadfile
	@if $(NEWER) --version >/dev/null 2>&1; then \
	  $(MAKE) test PYTHON=$(NEWER) VENV=.venv-newer; \
	else \
	  echo "$(NEWER) is not here: make test-all NEWER=/path/to/python3.12"; \
	  exit 1; \
	fi

theory: $(READY)  ## the paper's bounds against measured trajectories: a page
	$(BIN)/python -m tsla theory --out=demo/theory
	@echo "Open demo/theory/theory.html"

FASHION ?= /usr/share/datasets/fashion-mnist

variance: $(READY)  ## what docs/variance.md shows: two hours on 2 cores
	$(BIN)/python -m tsla idx --train=4000 --folder=$(FASHION) \
	  --out=data/fashion_mnist_4000.npz
	for noise in 0 0.2 0.4; do for set in digits fashion_mnist; do \
	  $(BIN)/python -m tsla sweep --seeds=5 --jobs=2 \
	    --table=configs/sweeps/$${set}_variance.py \
	    --workdir=runs/variance/$$set-$$noise \
	    --config.data.label_noise=$$noise || exit; \
	done; done
	for noise in 0 0.4; do for set in digits fashion_mnist; do \
	  $(BIN)/python -m tsla sweep --seeds=5 --jobs=2 \
	    --table=configs/sweeps/$${set}_rules.py \
	    --workdir=runs/rules/$$set-$$noise \
	    --config.data.label_noise=$$noise || exit; \
	done; done
	for set in digits fashion_mnist; do \
	  $(BIN)/python -m docs.plots docs/variance-$$set.png \
	    0=runs/variance/$$set-0 0.2=runs/variance/$$set-0.2 \
	    0.4=runs/variance/$$set-0.4 || exit; \
	done
	$(BIN)/python -m docs.variance_tables runs/variance/*

bench: $(READY)  ## every benchmark of this machine, into benchmarks/results
	$(BIN)/python benchmarks/all.py

nightly: $(READY)  ## runs killed 300 times, then the mutants: hours
	TSLA_KILLS=300 $(OPTIMISED) $(BIN)/python -m pytest -n0 -s tests/test_faults.py \
	  -k kill_9
	$(MAKE) mutants

mutants: $(READY)  ## bugs put into a copy, one at a time: do tests notice?
	$(BIN)/python tests/mutants/run.py --jobs=2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): requirements.txt requirements-dev.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) is not here: make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.12 …"; \
	    exit 2; }
	@echo "Installing into $(VENV), about a minute"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .venv-newer demo .pytest_cache .ruff_cache
