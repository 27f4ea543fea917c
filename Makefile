# Everything is installed into .venv, .venv-tflite and .venv-proto: the machine needs only Python
# 3.11 or newer, make and a C compiler. `make help` lists the targets.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$name" -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null && \
	command -v "$$name" && break; done)
# The last release of the second runtime was built for Python 3.11 alone.
PYTHON311 ?= $(shell for name in $(PYTHON) python3.11; do \
	"$$name" -c 'import sys; assert sys.version_info[:2] == (3, 11)' 2>/dev/null && \
	command -v "$$name" && break; done)

CHECKED = $(shell find client loader_service tests examples benchmarks packaging proto \
	-name '*.py' 2>/dev/null | cut -d/ -f1 | sort -u)
# What the second runtime and the older major version of protobuf can change.
TFLITE_TESTS = $(wildcard tests/runtime tests/writer tests/wire tests/client tests/integration)
# Sockets, signals, threads and processes are the same with both.
TFLITE_LEAVES = $(addprefix --ignore=,$(wildcard \
	$(patsubst %,tests/client/test_%.py,channel connecting embedded fork interruption sequence \
	uninterrupted) \
	$(patsubst %,tests/integration/test_%.py,cost_of_a_call interruption jupyter life many_calls)))

PYTEST = .venv/bin/python -m tests.support.run_pytest
PYTEST_AS_USER = .venv/bin/python -m tests.support.as_user
PYTEST_TFLITE = MODEL_LOADER_TEST_RUNTIMES=tflite-runtime .venv-tflite/bin/python -m tests.support.run_pytest
# Files of tests in their order, so that the sandbox's come before any that use gRPC.
TWO_AT_A_TIME = -n 2 --dist loadfile --no-loadscope-reorder
NONE_IS_FINE = || test $$? -eq 5 # pytest's status for "no test was selected"

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done

# $(call environment,FOLDER,PYTHON,WHAT PIP INSTALLS): make a virtual environment and its stamp.
# Pip's whole output goes to a log; the terminal shows one line for each package fetched.
define environment
@rm -f $@
@echo "installing into $(1) (the first time this fetches some hundred megabytes)"
@test -x $(1)/bin/python || $(2) -m venv --clear $(1) || { \
	echo "this Python cannot make virtual environments: on Debian and Ubuntu install python3-venv"; \
	exit 1; }
@{ $(1)/bin/python -m pip install --disable-pip-version-check $(3) && touch $@; } 2>&1 \
	| tee $(1)/install.log | sed -n 's/^Collecting \([^ ]*\).*/  \1/p'
@test -e $@ || { tail -n 25 $(1)/install.log; \
	echo "installing into $(1) failed; the whole log is $(1)/install.log"; exit 1; }
endef

# $(call on_second_runtime,MARKERS): run those of its tests, where its Python is.
ifeq ($(PYTHON311),)
on_second_runtime = @echo "the second runtime needs Python 3.11, which is not here: not tested"
else
on_second_runtime = @$(MAKE) .venv-tflite/installed && \
	echo '$(PYTEST_TFLITE) $(TWO_AT_A_TIME) -m "$(1)" $(TFLITE_TESTS) $(TFLITE_LEAVES)' && \
	$(PYTEST_TFLITE) $(TWO_AT_A_TIME) -m "$(1)" $(TFLITE_TESTS) $(TFLITE_LEAVES)
endif

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { \
		echo "Python 3.11 or newer is needed; python3 here: $$(python3 --version 2>&1)."; \
		echo "Install one, or name it: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3"; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)."; exit 1; }
	$(call environment,.venv,"$(PYTHON)",--editable ".[service$(comma)images$(comma)dev]")

.venv-tflite/installed: pyproject.toml
	$(call environment,.venv-tflite,"$(PYTHON311)",\
		--editable ".[service$(comma)tflite$(comma)images$(comma)test]" "protobuf<7")

.venv-proto/installed: Makefile
	$(call environment,.venv-proto,"$(PYTHON)","grpcio-tools==1.73.0" "setuptools<81")

comma := ,

.PHONY: install
install: .venv/installed ## install the project and its tools into .venv

.PHONY: demo
demo: install ## classify handwritten digits in a sandbox, and see a hostile model stopped
	@.venv/bin/model-loader demo

.PHONY: test
test: lint types test-main test-tflite test-user ## lint, types and all tests but the slow ones

.PHONY: test-main
test-main: install ## the tests, as the user who runs make
	$(PYTEST) $(TWO_AT_A_TIME) -m "not slow" tests

.PHONY: test-tflite
test-tflite: ## the same with the second runtime, NumPy 1 and protobuf 6 (needs Python 3.11)
	$(call on_second_runtime,not slow)

.PHONY: test-user
test-user: install ## as root: the isolation tests once more as an unprivileged user
	$(PYTEST_AS_USER) $(TWO_AT_A_TIME) -m "isolation and not slow" tests

.PHONY: test-slow
test-slow: test-slow-main test-slow-tflite test-slow-user ## what takes longer

.PHONY: test-slow-main
test-slow-main: install
	$(PYTEST) $(TWO_AT_A_TIME) -m slow tests

.PHONY: test-slow-tflite
test-slow-tflite:
	$(call on_second_runtime,slow)

.PHONY: test-slow-user
test-slow-user: install
	$(PYTEST_AS_USER) $(TWO_AT_A_TIME) -m "isolation and slow" tests $(NONE_IS_FINE)

# The pictures need one more package than the tests do.
.venv/installed-bench: .venv/installed
	$(call environment,.venv,"$(PYTHON)",--editable ".[service$(comma)images$(comma)dev$(comma)bench]")

.PHONY: bench
bench: .venv/installed-bench $(if $(PYTHON311),.venv-tflite/installed) ## measure calls, loads, memory and throughput (20 minutes; BENCH=--quick: two)
	.venv/bin/python -m benchmarks $(BENCH)

.PHONY: bench-peers
bench-peers: install ## measure other servers the same way (800 MB are installed at first; BENCH=--quick)
	.venv/bin/python -m benchmarks --sections peers $(BENCH)

.PHONY: bench-devices
bench-devices: .venv/installed-bench ## measure devices against in process (five minutes; BENCH=--quick)
	.venv/bin/python -m benchmarks --sections devices $(BENCH)

# Atheris is needed for this only.
.venv/installed-fuzz: .venv/installed
	$(call environment,.venv,"$(PYTHON)",--editable ".[service$(comma)images$(comma)dev$(comma)fuzz]")

.PHONY: soak
soak: install ## hostile and honest programs on one service (ten minutes; SOAK_SECONDS=180)
	.venv/bin/python -m tests.soak --seconds $(or $(SOAK_SECONDS),600)

.PHONY: soak-daemon
soak-daemon: install ## fifty programs on one daemon, with random kills (ten minutes; SOAK_SECONDS=180)
	.venv/bin/python -m tests.soak.crowd --seconds $(or $(SOAK_SECONDS),600)

.PHONY: fuzz
fuzz: .venv/installed-fuzz ## hostile bytes at the doors (ten minutes; FUZZ_MUTANTS=20000: an hour)
	.venv/bin/python -m tests.fuzz models --mutants $(or $(FUZZ_MUTANTS),4000) --keep build/fuzz
	@if [ -e .venv-tflite/installed ]; then \
		.venv-tflite/bin/python -m tests.fuzz models --runtime tflite-runtime --mutants 1000 \
			--keep build/fuzz-tflite; \
	else echo "the second runtime is not installed (make test-tflite): not fuzzed"; fi
	.venv/bin/python -m tests.fuzz wire
	.venv/bin/python -m tests.fuzz coverage --keep build/fuzz

.PHONY: deb
deb: install ## build the Debian package, for the Python of this machine, into dist
	.venv/bin/python packaging/debian/build.py

.PHONY: lint
lint: install ## ruff: rules and formatting
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.PHONY: format
format: install ## rewrite the code as lint wants it
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.PHONY: types
types: install ## mypy, strict
	.venv/bin/mypy $(CHECKED)

.PHONY: proto
proto: .venv-proto/installed ## generate the protobuf modules with the oldest supported tools
	.venv-proto/bin/python proto/generate.py

.PHONY: clean
clean: ## remove everything that make made
	rm -rf .venv .venv-tflite .venv-proto .venv-triton .venv-mlserver build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
