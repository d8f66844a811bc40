# make demo    a first look: runs the quickstart and prints the speed-up it measured here
# make lab     the quickstart in JupyterLab
# make test    every test; installs what they need first
# make lint    formatting, types, layers
# make soak    five minutes of everything under random kills; every task must be accounted for
# make loops   20,000 generated `%%parallel` loops against serial; a wrong answer is shown as small as it gets
# make bench   nbpar beside its peers, in an environment of their own; writes benchmarks/RESULTS.md
# make bench-dashboard   of these the dashboard's alone, in JupyterLab and Chromium; the rest of RESULTS.md stays
# make shots   the pictures in docs/images, of real jobs in JupyterLab and in a terminal
# make clean   removes all that the targets above made
#
# Python 3.11 or newer is found by itself; PYTHON=python3.12 names one. VENV=.venv-312 keeps a second environment.
# PYTEST_ARGS="-k crash -x" goes to pytest, BENCH_ARGS="--quick --peers Pool,mpire" to the benchmarks, and
# SOAK_ARGS="--minutes 60 --seed 7" to the soak, SHOTS_ARGS="--only failing,terminal" to the pictures, and
# LOOPS_ARGS="--examples 500 --start-method forkserver" to the loops.

PYTHON ?=
VENV ?= .venv
PYTEST_ARGS ?=
BENCH_VENV ?= .venv-bench
BENCH_ARGS ?=
SHOTS_ARGS ?=
SOAK_ARGS ?= --minutes 5
LOOPS_ARGS ?= --examples 20000
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
CHECKED := nbpar tests tools noxfile.py $(wildcard benchmarks)
# Beside the installed ipykernel, which is the newest. They come without their dependencies: those of the newest serve,
# and nest-asyncio is the one that only ipykernel 6 has.
KERNELS := .kernels/ipykernel-6.31 .kernels/ipykernel-7.3

.PHONY: help demo lab test lint soak loops bench bench-dashboard run-benchmarks shots clean chromium
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

demo: $(VENV)/.installed-lab
	@$(PY) tools/run_notebook.py notebooks/quickstart.ipynb build/demo
	@echo "Read it: build/demo/quickstart.html (in any browser). Run it yourself: make lab"

lab: $(VENV)/.installed-lab
	$(PY) -m jupyterlab notebooks/quickstart.ipynb

# Three processes for two cores, since most tests wait for something; a file's tests stay together and in the order of the collection,
# browsers last. The doctests run apart: pytest imports every module for them, also those that prepare a worker process.
test: $(VENV)/.installed-test $(KERNELS:=/.installed) chromium
	@status=0; \
	$(PY) -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS) || status=$$?; \
	$(PY) -m pytest --doctest-modules nbpar || status=$$?; \
	exit $$status

lint: $(VENV)/.installed-lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(CHECKED)
	$(VENV)/bin/lint-imports

soak: $(VENV)/.installed-test
	@$(PY) -m tests.soak $(SOAK_ARGS)

loops: $(VENV)/.installed-test
	@$(PY) -m tests.loops $(LOOPS_ARGS)

bench:
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) run-benchmarks
	$(if $(BENCH_ARGS),,@$(MAKE) --no-print-directory bench-dashboard)

# In the environment of the tests, which has JupyterLab and what drives a browser.
bench-dashboard: $(VENV)/.installed-test $(KERNELS:=/.installed) chromium
	@$(PY) -m benchmarks --only dashboard --update $(BENCH_ARGS)

run-benchmarks: $(VENV)/.installed-bench
	@$(PY) -m benchmarks $(BENCH_ARGS)

# A peer that does not install, for want of a wheel for this Python, does not end it: the report says so.
$(BENCH_VENV)/.installed-bench: $(BENCH_VENV)/.installed-venv pyproject.toml benchmarks/install.py
	@echo "Installing nbpar and its peers into $(BENCH_VENV) ..."
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@$(BENCH_VENV)/bin/python -m benchmarks.install
	@touch $@

shots: $(VENV)/.installed-test chromium
	@$(PY) -m tools.shots $(SHOTS_ARGS)

chromium:
	@tools/install_chromium.sh

$(VENV)/.installed-venv:
	@set -e; \
	if ! $(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$(tools/find_python.sh "$(PYTHON)"); \
	    echo "Making $(VENV) with $$python ..."; \
	    "$$python" -m venv --clear "$(VENV)"; \
	fi
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed-venv pyproject.toml
	@echo "Installing nbpar[$*] into $(VENV) ..."
	@$(PIP_INSTALL) --editable '.[$*]'
	@touch $@

.kernels/ipykernel-%/.installed: Makefile | $(VENV)/.installed-test
	@echo "Installing ipykernel $* into .kernels ..."
	@rm -rf $(@D)
	@$(PIP_INSTALL) --no-deps --target $(@D) 'ipykernel==$*.*' nest-asyncio
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) .kernels build dist .nox .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
