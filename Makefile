# Every target makes the environment it needs; `make` alone lists them.
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help env demo test test-browser test-e2e test-engines test-kubernetes test-s3 lint format constraints \
	bench bench-datasets bench-demo bench-engines bench-gates bench-local bench-root bench-search bench-serving bench-ui \
	flink-up flink-down soak clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# The stamp is written last, so an interrupted set-up is made again.
$(VENV)/ready: constraints/tfx116.hashes.txt constraints/tfx121.hashes.txt setup.py pyproject.toml tools/make_env.sh
	@sh tools/make_env.sh $(VENV)

# The C library of the dataset store, which lies in the sources. Without a compiler there is none: each call says so,
# and all but `make test` go on without.
NATIVE := mlplatform/datasets/format/native
READY := $(VENV)/ready $(NATIVE)/library.abi3.so
$(NATIVE)/library.abi3.so: $(wildcard $(NATIVE)/*.[ch] $(NATIVE)/*/*.[chS]) | $(VENV)/ready
	@rm -f $@
	@$(PY) setup.py --quiet build_ext --inplace --force

# Tests start hundreds of Pythons: none of them is to compile what was edited since `make env`. They write no byte
# code themselves: tests edit code twice within a second, which byte code does not see.
COMPILED := $(PY) -m compileall -q mlplatform components pipelines >/dev/null

env: $(READY) ## Make the environment (.venv) and nothing else

demo: $(READY) ## Run the whole trip on embedded photos: ingest, version, validate, train, push, serve, ask
	@$(PY) -m mlplatform.cli.main demo run $(ARGS)

PYTEST := PYTHONDONTWRITEBYTECODE=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY) ## Run the tests but those of test-e2e (choose with ARGS="tests/datasets", ARGS="-k name", ...)
	@$(COMPILED)
	@$(PYTEST) -m "not slow" $(ARGS)

test-e2e: $(READY) ## Run the rest of the tests, marked `slow`: whole pipelines, from their data to served answers
	@$(COMPILED)
	@$(PYTEST) -m slow $(ARGS)

lint: $(READY) ## Check style, types and import layers
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

format: $(READY) ## Format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

constraints: $(READY) ## Resolve the pinned dependency sets anew
	@UV=$(VENV)/bin/uv sh tools/make_constraints.sh

bench: bench-datasets bench-demo bench-engines bench-gates bench-local bench-root bench-search bench-serving bench-ui ## Run every benchmark

bench-datasets: $(READY) ## Dataset store against DVC and a plain copy
	@$(PY) tests/benchmarks/bench_datasets.py $(ARGS)

bench-demo: $(READY) ## An answer of the live demo against the bare REST call
	@$(PY) tests/benchmarks/bench_demo.py $(ARGS)

bench-engines: $(READY) ## Data steps in process against Flink (start it before: make flink-up)
	@$(PY) tests/benchmarks/bench_engines.py $(ARGS)

bench-gates: $(READY) ## Model gate against the bare model calls and stock TFX Evaluator: 100,000 photos of 1,100 classes
	@$(PY) tests/benchmarks/bench_gates.py $(ARGS)

bench-local: $(READY) ## Local runner against stock LocalDagRunner: taxi in two layouts (3 times each) and item_category (once)
	@$(PY) tests/benchmarks/bench_local.py $(ARGS)

bench-root: $(READY) ## A root on an S3 server against a local folder: item_category from photos to pushed model
	@$(PY) tests/benchmarks/bench_root.py $(ARGS)

bench-search: $(READY) ## Search at 100,000 and 1,000,000 vectors: recall, CPU, size, filters
	@$(PY) tests/benchmarks/bench_search.py $(ARGS)

bench-serving: $(READY) ## Model server against the in-process model and a Python peer
	@$(PY) tests/benchmarks/bench_serving.py $(ARGS)

# Playwright drives Debian's Chromium; neither is needed for anything else.
BROWSER ?= $(HOME)/.cache/mlplatform/browser
$(BROWSER)/playwright: | $(READY)
	@$(VENV)/bin/uv pip install -q --python $(PY) --target $(BROWSER) playwright==1.65.2 axe-playwright-python==0.1.8

bench-ui: $(READY) $(BROWSER)/playwright ## Dashboard over 10,000 runs: CPU of its pages, in Chromium beside MLflow's, a run beside ten tabs
	@PYTHONPATH=$(BROWSER) $(PY) tests/benchmarks/bench_ui.py $(ARGS)

test-kubernetes: $(READY) ## Run the tests on a real Kubernetes of one node, started here; skips with the reason
	@$(COMPILED)
	@S3_SERVER=$$(sh tools/s3_server.sh || :) KUBERNETES=$(KUBERNETES) \
		$(PY) -m pytest -m kubernetes tests/kubernetes $(ARGS)

# Where its programs are built the first time (some 10 minutes).
KUBERNETES ?= $(HOME)/.cache/mlplatform/kubernetes

soak: $(READY) ## Run the minutes-long studies: kills, races, mixed load
	@$(COMPILED)
	@$(PY) -m pytest -m soak $(ARGS)

# Everything that reads or writes S3, from the storage's promises to a run, another machine's view, and serving.
S3_TESTS := tests/storage tests/datasets/test_backends.py tests/registry tests/serving/test_models_at_urls.py \
	tests/e2e/test_root_at_a_url.py

test-s3: $(READY) ## Run the tests on S3 with a real server, versitygw, which is built with Go once
	@$(COMPILED)
	@S3_SERVER=$$(sh tools/s3_server.sh) && export S3_SERVER && $(PY) -m pytest $(S3_TESTS) $(ARGS)

test-browser: $(READY) $(BROWSER)/playwright ## Look at every page of dashboard and demo in Chromium, with axe-core
	@$(COMPILED)
	@PYTHONPATH=$(BROWSER) $(PY) -m pytest -m soak tests/ui/test_pages.py tests/ui/test_questions.py \
		tests/demo/test_live.py tests/demo/test_offline.py tests/reports/test_ids_in_a_browser.py $(ARGS)

test-engines: $(READY) ## Run the tests on real Beam engines; needs a JDK 17 and Maven, skips with the reason
	@$(COMPILED)
	@FLINK=$(FLINK) SPARK=$(SPARK) $(PY) -m pytest -m engines $(ARGS)

# Where Spark and Beam's job server for it lie.
SPARK ?= $(HOME)/.cache/mlplatform/spark

# A Flink cluster of this machine's processes, for development and the tests on engines.
FLINK ?= $(HOME)/.cache/mlplatform/flink
TASK_MANAGERS ?= 3

flink-up: $(VENV)/ready ## Start a Flink cluster and Beam's job server on this machine (localhost:8099)
	@sh tools/flink/setup.sh $(FLINK) $(PY)
	@bash tools/flink/cluster.sh $(FLINK) start $(TASK_MANAGERS)

flink-down: ## Stop the Flink cluster
	@bash tools/flink/cluster.sh $(FLINK) stop

clean: ## Remove the environment and what tools left
	rm -rf $(NATIVE)/*.so $(VENV) $(VENV)-uv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
