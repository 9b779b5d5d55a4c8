# SPDX-License-Identifier: Apache-2.0
# One environment in .venv, made again when pyproject.toml or constraints.txt change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where pip finds the CPU build of torch. For a GPU: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130
# Left empty, torch comes from pip's usual index, which on Linux is the CUDA build.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# More for the tests, for example: make test PYTEST="-k exchange"
PYTEST ?=
# A process a core; the tests of a file stay together, because they share what is slow to make.
EACH_CORE ?= -n auto --dist loadfile

SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.complete
REAL_T1 := outputs/real-t1/ch2.nii.gz
NGINX := outputs/nginx/usr/sbin/nginx
CODE := client server pasta_model simulation tests benchmarks

say = @printf '\n\033[1m== %s\033[0m\n' "$(1)"

.DEFAULT_GOAL := help
.PHONY: help env demo real-scan nginx chromium test fmt clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## create .venv with everything in it (about 2 GB)

demo: $(STAMP) ## a federation on this machine, end to end: outputs/demo/report.html
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pasta-sim demo

real-scan: $(REAL_T1) ## fetch a real T1 MRI (Colin27) for one more test, where Debian's packages are

nginx: $(NGINX) ## fetch nginx, installed nowhere, for the tests of the proxy, where Debian's packages are

chromium: ## install Chromium for the test of the report in a browser, where CI runs as root on Debian
	@[ -n "$$CI" ] && [ "$$(id -u)" = 0 ] && apt-get update -q >/dev/null && \
		apt-get install -y -q --no-install-recommends chromium >/dev/null

test: $(STAMP) ## every check, the slow ones too; stops at the first that fails
	$(call say,ruff)
	@$(BIN)/ruff check .
	$(call say,format)
	@$(BIN)/ruff format --check .
	$(call say,import contracts)
	@$(BIN)/lint-imports
	$(call say,mypy)
	@$(BIN)/mypy
	$(call say,tests: fast)
	@$(BIN)/pytest -q -m "not slow and not integration" $(EACH_CORE) $(PYTEST)
	$(call say,tests: slow and integration)
	@$(MAKE) -s real-scan || echo "no real T1 could be fetched: one test is left out"
	@command -v nginx >/dev/null || $(MAKE) -s nginx || echo "no nginx could be fetched: the tests of the proxy are left out"
	@command -v chromium >/dev/null || $(MAKE) -s chromium || echo "no Chromium: the test of the report in a browser is left out"
	@PASTA_REAL_T1="$(CURDIR)/$(REAL_T1)" PASTA_NGINX="$$(command -v nginx || echo "$(CURDIR)/$(NGINX)")" \
		$(BIN)/pytest -q -m "slow or integration" --durations=10 $(EACH_CORE) $(PYTEST)
	$(call say,all checks passed)

fmt: $(STAMP) ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

clean: ## remove .venv, caches and outputs
	rm -rf .venv outputs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# Colin27, a real head, as Debian ships it (mricron-data); unpacked here, installed nowhere.
$(REAL_T1):
	$(call say,a real T1: $@)
	@rm -rf $(@D) && mkdir -p $(@D)
	@cd $(@D) && apt-get download -q mricron-data && dpkg-deb -x mricron-data_*.deb . && \
		mv usr/share/mricron/templates/ch2.nii.gz . && rm -rf usr mricron-data_*.deb

# The package of that name holds the program itself; its modules and settings, in others, are not needed.
$(NGINX):
	$(call say,nginx: $@)
	@rm -rf outputs/nginx && mkdir -p outputs/nginx
	@cd outputs/nginx && apt-get download -q nginx && dpkg-deb -x nginx_*.deb . && rm -f nginx_*.deb && \
		{ usr/sbin/nginx -v || { cd .. && rm -rf nginx; exit 1; }; }

# torch first and alone, so that only torch is looked up in its own index, and no CUDA wheel is fetched.
$(STAMP): pyproject.toml constraints.txt
	$(call say,environment: .venv)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null || \
		{ echo "Python 3.11 or 3.12 is needed; name it with: make PYTHON=/path/to/python3.11"; exit 2; }
	@rm -f $@
	@"$(PYTHON)" -m venv --clear .venv
	@$(BIN)/python -m pip install -q --retries 1 --no-deps -c constraints.txt torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@
