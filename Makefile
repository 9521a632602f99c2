# Needs git, make and python3 (3.11 or newer); everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-fast test-slow test-lowest package lint bench soak throughput chaos security clean

demo: $(READY)
	$(BIN)/python launch.py --grid digits

# Tests that start a Ray take the whole machine: one at a time, after the others.
WITH_RAY := tests/cluster tests/integration

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(addprefix --ignore ,$(WITH_RAY))
	$(BIN)/python -m pytest $(WITH_RAY)

# While one works: no Ray, no server, no browser, and not the longest
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m 'not ray and not slow and not s3 and not browser and not long'

# What `make test` leaves out
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m tests.benchmarks $(ONLY) $(if $(JSON),--json $(JSON))

# What a thousand cheap cells cost and leave: make soak CELLS=1000, or S3=1 for the requests to an object store
soak: $(READY)
	$(BIN)/python -m tests.benchmarks.soak $(if $(CELLS),--cells $(CELLS)) $(if $(S3),--s3)

throughput: $(READY)
	$(BIN)/python -m tests.benchmarks.throughput

# The digits grid under kills: make chaos KILLS=30 SEED=1 S3=1
chaos: $(READY)
	$(BIN)/python -m tests.chaos $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(if $(S3),--s3)

# Attacks as another user and as another machine: as root, with iproute2 and util-linux
security: $(READY)
	$(BIN)/python -m tests.security

# The wheel as its users have it: installed, in somebody else's project, and on a Ray that sees neither (as root, for that)
package: $(READY)
	$(BIN)/python -m tests.package

# The oldest versions that pyproject.toml allows, of all that it names and not of what those need
test-lowest: $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m tests.package.lowest

# A .venv of an older Python, or one without pip (as a failed attempt leaves it), is made again.
FITS := -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))'
CAN_MAKE_ONE := -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'

# Compiled once here, or every worker process would compile torch and timm for itself where Python may not cache.
$(READY): pyproject.toml constraints.txt
	@$(BIN)/python $(FITS) 2> /dev/null || $(PYTHON) $(CAN_MAKE_ONE) 2> /dev/null || { \
		found=$$($(PYTHON) --version 2>&1) || found="not found"; \
		echo "error: this needs Python 3.11 or newer with its venv module; $(PYTHON) is $$found." \
			"Name another: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python $(FITS) 2> /dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv .venv-lowest .mypy_cache .ruff_cache .pytest_cache *.egg-info
