# Each target makes the virtual environment that it needs; nothing has to be installed by hand but
# make, git and Python 3.11 to 3.13 with its venv module. Variables, as in `make test TORCH=0`:
#   PYTHON   interpreter the environment is built on          (python3)
#   TORCH    0 leaves torch out, and its tests are skipped    (1)
#   COVERAGE 0 does not measure which lines and branches the tests reach  (1)
#   WORKERS  processes that run the tests; many of them wait  (4)
#   CLUSTER  where the demo runs: local or slurm              (local)
#   ARGS     further arguments of pytest, of the demo, of the benchmark or of downstream/run.py
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= 1
COVERAGE ?= 1
CLUSTER ?= local
WORKERS ?= 4
ARGS ?=
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test check check-format check-lint check-mypy check-pyright check-completeness lowest trackers bench comparison docs docs-links downstream matrix release-check release identity long torture night format lock slurm-up slurm-newer slurm-down clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

$(VENV)/.demo: pyproject.toml requirements-dev.lock scripts/venv.sh
	@scripts/venv.sh $(VENV) demo
	@touch $@

$(VENV)/.dev: pyproject.toml requirements-dev.lock scripts/venv.sh
	@scripts/venv.sh $(VENV) dev
	@touch $@ $(VENV)/.demo

$(VENV)/.torch: $(VENV)/.dev
	@scripts/venv.sh $(VENV) dev,torch
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@scripts/venv.sh $(VENV) dev,docs
	@touch $@

$(VENV)/.release: $(VENV)/.dev
	@scripts/venv.sh $(VENV) dev,release
	@touch $@

TEST_VENV := $(if $(filter 0,$(TORCH)),$(VENV)/.dev,$(VENV)/.torch)

demo: $(VENV)/.demo ## run the study of examples/digits (CLUSTER=slurm: on Slurm, started here if none answers)
	@if [ "$(CLUSTER)" = slurm ] && ! scontrol ping 2> /dev/null | grep -q "is UP"; then \
	  scripts/slurm/up.sh && export SLURM_CONF=$${EXCA_SLURM_STATE:-/tmp/exca-slurm}/etc/slurm.conf || exit 1; \
	fi; \
	CLUSTER="$(CLUSTER)" $(BIN)/python examples/digits/study.py $(ARGS)

test: $(TEST_VENV) ## run the tests, including those that need Slurm where the test cluster can be started
	@scripts/slurm/up.sh || echo "Slurm tests skipped: the test cluster is not up, the line above says why"
	@$(if $(MEASURED),$(BIN)/python -m coverage erase; export EXCA_COVERAGE=1;) status=0; $(BIN)/python -m pytest --numprocesses $(WORKERS) $(ARGS) || status=$$?; \
	$(if $(MEASURED),$(REPORT) || status=1;) exit $$status

# Coverage is measured for full runs only; without Slurm or torch the floor does not apply.
MEASURED := $(if $(ARGS)$(filter 0,$(COVERAGE)),,yes)
FLOOR := $(if $(and $(EXCA_REQUIRE_SLURM),$(filter-out 0,$(TORCH))),,--fail-under=0)
REPORT = $(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report --skip-covered $(FLOOR)

check: check-format check-lint check-mypy check-pyright check-completeness ## check format, style and types (make -k check: all of them, even if one fails)

$(VENV)-lowest/.made: pyproject.toml scripts/venv.sh scripts/lowest.py
	@mkdir -p $(@D) && $(PYTHON) scripts/lowest.py > $(@D)/constraints.txt
	@scripts/venv.sh $(@D) tables,test $(@D)/constraints.txt
	@touch $@

$(VENV)-trackers/.made: pyproject.toml scripts/venv.sh
	@scripts/venv.sh $(@D) test,trackers /dev/null
	@touch $@

trackers: $(VENV)-trackers/.made ## run the tests of exports to MLflow, W&B, Trackio and TensorBoard, in an environment of their own, since some of their versions conflict with those in .venv
	$(VENV)-trackers/bin/python -m pytest -m "long or not long" tests/cli/test_trackers.py $(ARGS)

# "typed" cases hold what pydantic 2.14 makes of them
LOWEST := tests/test_confdict.py tests/test_utils.py tests/identity/test_identity.py tests/identity/test_discriminated.py \
  tests/identity/test_export.py tests/cachedict tests/functions tests/task/test_task.py tests/jobs/test_local_jobs.py tests/map/test_map.py -k "not typed"
lowest: $(VENV)-lowest/.made ## run the tests of identity, storage and tasks with the lowest versions of all dependencies
	$(VENV)-lowest/bin/python -m pytest --numprocesses $(WORKERS) $(or $(ARGS),$(LOWEST))

check-format: $(VENV)/.dev
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.dev
	$(BIN)/ruff check .

check-mypy: $(TEST_VENV)
	$(BIN)/mypy

check-pyright: $(TEST_VENV)
	$(BIN)/pyright

# every name that can be imported has a type that all type checkers agree on
check-completeness: $(TEST_VENV)
	@set -o pipefail; PYTHONPATH=src $(BIN)/pyright --pythonpath $(BIN)/python --verifytypes exca --ignoreexternal \
	  | sed '1,/^Public modules/d; /^   exca/d'

# hydra needs a package that is there as source only, for which the other environments have no setuptools
$(VENV)/.bench: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check hydra-core==1.3.8
	@touch $@

bench: $(VENV)/.bench ## benchmark against the published release and other tools, and write a page to build/bench
	$(BIN)/python benchmarks/run.py --json build/bench/measurements.json $(ARGS)
	$(BIN)/python benchmarks/page.py build/bench/measurements.json

comparison: $(VENV)/.dev ## ask other tools and this one the same questions, each in its own environment (see docs/comparison.md)
	$(BIN)/python benchmarks/comparison/run.py $(ARGS)

docs: $(VENV)/.docs ## build the documentation in build/docs; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -b html -c scripts/docs docs build/docs $(ARGS)

docs-links: $(VENV)/.docs ## check the links of the documentation (needs the network)
	$(BIN)/python -m sphinx -W --keep-going -b linkcheck -c scripts/docs docs build/docs-links $(ARGS)

identity: $(TEST_VENV) ## search for uids, keys and addresses that differ from those of the published release
	$(BIN)/python tests/identity/against_release/search.py $(ARGS)

long: $(TEST_VENV) ## run the tests that are too slow to run on each change: losses and checkpoints on Slurm, Dask, warm supervisors
	@scripts/slurm/up.sh
	$(BIN)/python -m pytest -m long --numprocesses $(WORKERS) $(ARGS)

torture: $(TEST_VENV) ## run the long form of the torture suite
	$(BIN)/python -m pytest -m torture $(ARGS)

night: $(TEST_VENV) ## run 300 trainings on Slurm while everything around them fails (15 minutes at most)
	@folder=$$(mktemp -d) && $(BIN)/python tests/night/overnight.py $$folder/night $(ARGS)

downstream: ## run the tests of published packages that depend on exca, with 0.6.0 and with this release (see CONTRIBUTING.md)
	$(PYTHON) downstream/run.py $(ARGS)

matrix: $(VENV)/.release ## run the tests on all interpreters found, with newest and lowest versions, and without what some machines lack
	$(BIN)/python -m nox $(ARGS)

release-check: $(VENV)/.release ## build the release of the last commit twice, inspect it, install it and use it
	$(BIN)/python scripts/release.py check $(ARGS)

release: $(VENV)/.release ## make release VERSION=1.2.0: write version and changelog, check, commit, tag
	$(BIN)/python scripts/release.py $(VERSION) $(ARGS)

format: $(VENV)/.dev ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lock: $(VENV)/.torch $(VENV)/.docs $(VENV)/.release ## write the versions installed in .venv to requirements-dev.lock
	@$(BIN)/pip freeze --exclude-editable | sed -E '/^(exca|pip|setuptools|wheel)\b|^#| @ /d; s/\+[a-z0-9.]+$$//' > requirements-dev.lock

slurm-up: ## start the Slurm test cluster (root, Debian)
	scripts/slurm/up.sh

slurm-newer: $(TEST_VENV) ## run the Slurm tests with the Slurm of the next Debian, in a separate folder (root, debootstrap)
	scripts/slurm/newer.sh $(ARGS)

slurm-down: ## stop the Slurm test cluster
	scripts/slurm/down.sh

clean: ## remove environments, caches and the output of the demo
	rm -rf .nox .venv .venv-lowest .venv-trackers .venv-reference .venv-comparison .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo-cache demo-cache.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
