# The one way in for developers. `make build` leaves .venv/bin/crane.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

VENV := .venv
BIN := $(VENV)/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
LIBRARY := libcrane_interposer.so
NATIVE := src/crane/_native
# The interposer is built by itself (see Cargo.toml), the binding by maturin
# with the settings of an extension module.
CRATES := --workspace --exclude crane-python --exclude crane-interposer
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: build test lint test-rust test-python limits demo bench reliability verify-programs wheel lock clean packages \
        test-packages demo-packages bench-packages simulate fuzz test-fuzz

build: $(VENV)/.locked | packages ## everything needed to run crane from this checkout
	cargo build --release --locked -p crane-interposer
	@mkdir -p $(NATIVE)
	@# A new file, so that a running program keeps the one it has mapped.
	install -m 755 $(TARGET)/release/$(LIBRARY) $(NATIVE)/.$(LIBRARY).new
	mv -f $(NATIVE)/.$(LIBRARY).new $(NATIVE)/$(LIBRARY)
	source $(BIN)/activate && maturin develop --release --locked
	@$(BIN)/crane --version

packages:
	@.ci/packages cc:build-essential protoc:protobuf-compiler python3:python3 venv:python3-venv
	@command -v cargo >/dev/null || \
	    { echo "crane: cargo is missing; install Rust 1.95 or newer with rustup" >&2; exit 1; }

test-packages: | build
	@.ci/packages redis-server:redis-server redis-cli:redis-tools curl:curl \
	    ip:iproute2 nft:nftables mkfs.ext4:e2fsprogs nsenter:util-linux faketime:faketime
	@.ci/packages $$($(BIN)/python tests/programs/catalogue.py)
	@# Without it the tests that need it are skipped, and say so.
	@if [ "$$(id -u)" -eq 0 ]; then $(BIN)/crane checkpoint setup || true; fi

$(VENV)/.locked: requirements.lock | packages
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) -r requirements.lock
	@touch $@

$(VENV)/.locked-dev: requirements-dev.lock $(VENV)/.locked
	$(PIP) -r requirements-dev.lock
	@touch $@

test: lint test-rust test-fuzz test-python ## all checks and tests

lint: build $(VENV)/.locked-dev
	cargo fmt --all --check
	cargo clippy --workspace --exclude crane-interposer --all-targets --locked -- -D warnings
	cargo clippy --release --locked -p crane-interposer -- -D warnings
	$(BIN)/ruff format --check src tests examples tools
	$(BIN)/ruff check src tests examples tools
	$(BIN)/mypy
	MYPYPATH=tools $(BIN)/mypy tools/*.py
	MYPYPATH=tests/programs $(BIN)/mypy --explicit-package-bases tests/programs/*.py tests/programs/servers/*.py

test-rust: build
	@if command -v cargo-nextest >/dev/null; then \
	    cargo nextest run $(CRATES) --locked --no-fail-fast; \
	else \
	    cargo test $(CRATES) --locked --no-fail-fast; \
	fi

SEEDS := 1000
simulate: packages ## replicas with every fault, simulated: SEEDS=N of each scenario
	CRANE_SIM_SEEDS=$(SEEDS) cargo test --locked -p crane-consensus --test simulation -- --nocapture
	CRANE_SIM_SEEDS=$(SEEDS) cargo test --locked -p crane-engine --lib simulation:: -- --nocapture

MINUTES := 10
fuzz: build $(VENV)/.locked-dev ## input that nobody would write, for MINUTES=N in all
	$(BIN)/python tools/fuzz.py --seconds $$(( $(MINUTES) * 60 ))
	CRANE_FUZZ_EXAMPLES=$$(( $(MINUTES) * 1000 )) $(BIN)/pytest -q tests/unit/test_strange_input.py

# The same inputs each time: `make fuzz` is for others.
test-fuzz: packages
	python3 tools/fuzz.py --seconds 30 --seed 2015

test-python: build $(VENV)/.locked-dev | test-packages
	@# What searches histories for an order; see tests/linearizability.
	cargo build --release --locked --quiet -p crane-linearizable
	$(BIN)/pytest

demo-packages:
	@.ci/packages redis-server:redis-server

bench-packages:
	@.ci/packages redis-server:redis-server redis-benchmark:redis-tools etcd:etcd-server

demo: build | demo-packages ## three replicas of a server, and what happens when one dies
	$(BIN)/python -m crane.demo

bench: build | bench-packages ## how fast it is, beside the servers alone; writes docs/performance.md
	$(BIN)/crane bench
	@.ci/packages $$($(BIN)/python tests/programs/catalogue.py)
	$(BIN)/python tests/programs/measure.py $(PROGRAM)

reliability: build | test-packages ## every fault, several times, as root; writes docs/reliability.md
	cargo build --release --locked --quiet -p crane-linearizable
	$(BIN)/python tools/reliability.py
limits: build $(VENV)/.locked-dev | test-packages ## 10,000 clients and bad ones at full size, and what they cost
	CRANE_LIMITS=full $(BIN)/pytest -s tests/scenarios/test_limits.py

verify-programs: build $(VENV)/.locked-dev ## every server of tests/programs at full size: PROGRAM=NAME for one
	@.ci/packages $$($(BIN)/python tests/programs/catalogue.py $(PROGRAM))
	$(BIN)/python tests/programs/report.py $(PROGRAM)

wheel: build ## a wheel in dist/
	$(BIN)/maturin build --release --locked --out dist

lock: ## the locked dependencies anew from pyproject.toml; needs uv
	uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-header --group build --output-file requirements.lock
	uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-header --group build --group checks --constraint requirements.lock \
	    --output-file requirements-dev.lock

clean: ## remove what was built
	rm -rf $(VENV) $(TARGET) dist $(NATIVE)/*.so src/crane/_core*.so
