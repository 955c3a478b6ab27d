# make demo: from a bare machine to candidates. make gpaw: DFT labels, too.
# make check: lint, types and the fast tests. make test: from a bare machine to passing tests; with COVERAGE=1 it reports the coverage.
# make fuzz: all cases of the property tests, of which the other runs take a tenth.
# make docs: the user guide, in build/docs. make browser: what the tests of report.html need.
# make weights: trains what comes with the package, in two hours with a GPU, see matdesinne/pretrained/README.md.
# make mutants: mutation tests, see docs/mutation.md. make oldest: the tests with the oldest versions that pyproject.toml allows.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
LAYERS := mos2 mose2 ws2 wse2
MUTATED ?= localization selection targets transforms

.PHONY: demo check fast test fuzz oldest lint docs weights mutants gpaw browser clean

demo: $(INSTALLED)
	$(BIN)/python generate.py target=1.0 num_samples=2000 hydra.run.dir=demo

# the linters run beside the tests
check: $(INSTALLED)
	@$(MAKE) --no-print-directory -j 2 lint fast

fast: $(INSTALLED)
	$(PYTEST) -m "not slow"

test: lint
	@$(MAKE) gpaw || echo "GPAW cannot be installed here: the tests that need it will be skipped."
	@$(MAKE) browser || echo "Chromium cannot be installed here: the tests that need it will be skipped."
	$(PYTEST) --dist loadgroup $(if $(COVERAGE),--cov=matdesinne --cov-report=term:skip-covered)

fuzz: $(INSTALLED)
	$(PYTEST) -m hypothesis --hypothesis-profile=fuzz

# torch of that age comes with CUDA: several GB; warnings of other packages' age are no errors here
oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-oldest/bin/python -m pip install --quiet -c constraints-oldest.txt -e '.[cluster,explore,sweep]' hypothesis pytest pytest-xdist
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n 2 -W default --ignore=tests/test_packaging.py

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pymarkdown --log-level ERROR scan *.md docs matdesinne/datasets results/README.md results/transitions/README.md

docs: $(INSTALLED)
	$(BIN)/sphinx-build -W --keep-going docs build/docs

weights: $(INSTALLED)
	$(BIN)/python train.py surrogate=distilled/bands 'data.calibration=[mos2_gpaw_calibration]' folder=outputs/weights \
		surrogate@accurate_surrogate=tight_binding accurate_surrogate.max_epochs=840
	cd outputs/weights && cp accuracy.json model.* surrogate.* accurate_*.* $(CURDIR)/matdesinne/pretrained
	$(MAKE) $(LAYERS:%=matdesinne/pretrained/%)

# relaxed layers, some five minutes each on one core
matdesinne/pretrained/%: matdesinne/datasets/tmd_strain_%.parquet $(INSTALLED)
	$(BIN)/python train.py data=tmd_strain/$* model.max_epochs=11 folder=outputs/weights/$* logger=csv
	mkdir -p $@
	cd outputs/weights/$* && cp accuracy.json model.* surrogate.* $(CURDIR)/$@
	$(BIN)/python -c "from omegaconf import OmegaConf as O; O.save({'data': O.load('outputs/weights/$*/config.yaml').data}, '$@/config.yaml')"

mutants: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(MUTATED)

gpaw: $(VENV)/gpaw
browser: $(VENV)/browser

# GPAW is built against libraries of the system, which root can fetch on Debian
$(VENV)/gpaw: $(INSTALLED) gpaw_siteconfig.py
	if [ "$$(id -u)" = 0 ] && command -v apt-get; then apt-get update && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y libxc-dev libopenblas-dev libfftw3-dev g++; fi
	GPAW_CONFIG=$(CURDIR)/gpaw_siteconfig.py $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dft]'
	touch $@

# root can fetch it on Debian
$(VENV)/browser: $(INSTALLED)
	if [ "$$(id -u)" = 0 ] && command -v apt-get && ! command -v chromedriver; then apt-get update && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium chromium-driver; fi
	command -v chromium && command -v chromedriver
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cluster,dev,docs,explore,sweep]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist demo
