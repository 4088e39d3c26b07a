# The verbs of a day's work. `make` alone prints them: each is listed by the comment behind its name.
# `verify` never writes to the tree; `fix` and `golden` do all the rewriting.

CARGO  ?= cargo
# Where cargo puts what it builds, as an absolute path.
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
# One criterion bench a file; the end-to-end benchmark is a folder.
CRITERION := $(basename $(notdir $(wildcard benches/*.rs)))
# Packages of their own, so that kvist does not build what only they need.
SATELLITES := tests/compat/clients/rust/Cargo.toml tests/compat/clients/d-engine/Cargo.toml benches/d-engine/Cargo.toml \
              fuzz/Cargo.toml

# How `compat` and `diff` build the server that they play.
PROFILE ?= release
PLAYED   = $(or $(KVIST_TEST_SERVER),$(TARGET_DIR)/$(PROFILE)/kvist)

ROUNDS  ?= 500
SEEDS   ?= 1000
N       ?= 2000
TARGET  ?= wal_record
SECONDS ?= 60

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-bench tools up build test slow compat diff crash torture simulate golden verify audit fix fuzz bench bench-quick bench-record bench-parts ci etcdctl

help:
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what the tests need and this machine lacks (etcdctl, rustfmt, clippy)
	@.ci/setup

setup-bench: ## install etcd to compare with; Debian's package may start it on port 2379
	@command -v etcd >/dev/null || .ci/setup etcd-server

# The server's package is called "server"; everybody else calls it etcd. promtool is taken out of Debian's package, because
# installing that would start a server.
tools: ## get what kvist is compared with and checked by: etcd, etcdctl, etcdutl, promtool in target/tools
	@if command -v go >/dev/null; then \
	  set -ex; mkdir -p $(TARGET_DIR)/tools; \
	  cd tests/tools; go build -trimpath -o $(TARGET_DIR)/tools/ tool; \
	  mv $(TARGET_DIR)/tools/server $(TARGET_DIR)/tools/etcd; \
	else \
	  echo "SKIPPED tools: there is no Go to build etcd with; tests beside a real etcd will say that they were skipped"; \
	fi
	@if [ -x $(TARGET_DIR)/tools/promtool ]; then :; elif command -v apt-get >/dev/null; then \
	  set -ex; dir=$$(mktemp -d); cd $$dir; apt-get download prometheus || { apt-get update; apt-get download prometheus; }; \
	  dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool; \
	  mkdir -p $(TARGET_DIR)/tools; mv usr/bin/promtool $(TARGET_DIR)/tools/; rm -r $$dir; \
	else \
	  echo "SKIPPED promtool: there is no apt-get to get it with; the test of the alert rules will say that it was skipped"; \
	fi

up: build ## run a cluster of three on loopback until Ctrl-C; its data stays in target/up: make up ARGS="--log-level=warn"
	@packaging/cluster.sh $(TARGET_DIR)/$(PROFILE)/kvist $(TARGET_DIR)/up $(ARGS)

build: ## build the server as it is shipped: target/release/kvist
	$(CARGO) build --profile $(PROFILE)

test: etcdctl ## run every test that needs nothing but this package and etcdctl
	$(CARGO) test --no-fail-fast --lib --bins --tests

compat: build tools ## run real clients, in their own languages, against the release build: make compat ARGS="--only go,python"
	KVIST_TEST_SERVER=$(PLAYED) $(CARGO) test --test matrix -- $(ARGS)

# With the release build, which plays a sequence several times faster.
diff: build tools ## compare with a real etcd, by random requests: make diff N=2000, SEED=7, REPLAY=file.json
	KVIST_TEST_SERVER=$(PLAYED) N=$(N) KVIST_SEED=$(or $(SEED),$(KVIST_SEED)) REPLAY=$(REPLAY) $(CARGO) test --test diff

slow: etcdctl ## run the tests that take minutes and want the machine for themselves: etcdctl check perf
	$(CARGO) test --test compat -- --ignored

crash: ## kill the server under load and check what it kept: make crash ROUNDS=500
	KVIST_CRASH_ROUNDS=$(ROUNDS) $(CARGO) test --test crash -- --nocapture

# The release build plays as many histories in less time, and is what users run.
torture: build ## break clusters under load and judge what clients saw: make torture ROUNDS=300 SEED=7 FAULT=kill-leader
	KVIST_TEST_SERVER=$(PLAYED) ROUNDS=$(if $(filter command environment%,$(origin ROUNDS)),$(ROUNDS)) SEED=$(SEED) FAULT=$(FAULT) \
	  $(CARGO) test --test torture

simulate: ## play simulated clusters, each from one seed: make simulate SEEDS=1000 SEED=1, TRACE=1 to see every step
	KVIST_SIMULATIONS=$(SEEDS) KVIST_SEED=$(SEED) KVIST_TRACE=$(TRACE) $(CARGO) test --test simulation -- --nocapture clusters_agree

golden: ## record the golden files again (those of tests/diff from an etcd); read the difference before you commit it
	UPDATE_GOLDENFILES=1 $(CARGO) test --lib script_test
	UPDATE_GOLDENFILES=1 $(CARGO) test --test diff_golden
	@git --no-pager diff --stat -- src tests/diff/golden

verify: ## check formatting, lints, documentation, layering, licences; changes nothing
	$(CARGO) fmt --check
	@for package in $(SATELLITES); do (set -x; $(CARGO) fmt --check --manifest-path $$package) || exit; done
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --test matrix -- -D warnings
	$(CARGO) clippy --locked --test diff -- -D warnings
	$(CARGO) clippy --locked --test torture -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --lib
	$(CARGO) check --locked --manifest-path fuzz/Cargo.toml --target-dir $(TARGET_DIR)
	$(CARGO) test --locked --test tidy
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  set -x; $(CARGO) deny --offline check licenses bans sources; \
	else \
	  echo "SKIPPED licences and bans: cargo-deny is not installed (cargo install --locked cargo-deny)"; \
	fi

audit: ## look the dependencies up among the published security advisories (needs cargo-deny and the network)
	$(CARGO) deny check advisories

fix: ## rewrite what a tool can: formatting, and lints with a mechanical answer
	$(CARGO) clippy --fix --allow-dirty --allow-staged --all-targets
	$(CARGO) fmt
	@for package in $(SATELLITES); do (set -x; $(CARGO) fmt --manifest-path $$package) || exit; done

fuzz: ## fuzz one decoder: make fuzz TARGET=wal_record SECONDS=60 (targets: ls fuzz/fuzz_targets)
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
	  echo "fuzzing needs: rustup toolchain install nightly && cargo install --locked cargo-fuzz" >&2; exit 1; }
	$(CARGO) +nightly fuzz run $(TARGET) -- -max_total_time=$(SECONDS)

bench: ## measure kvist beside etcd (get it with make tools); ARGS="--help" lists what can be chosen
	$(CARGO) bench --bench end_to_end -- $(ARGS)

# With the profile of the tests, so that little is built for it: the figures mean nothing.
bench-quick: ## show that the benchmark works, in a minute
	$(CARGO) bench --profile dev --bench end_to_end -- --quick $(ARGS)

bench-record: ## copy the summary of the newest report into docs/benchmarks.md
	$(CARGO) bench --bench end_to_end -- --record docs/benchmarks.md

bench-parts: ## measure the parts: log, store, apply, watch hub
	$(CARGO) bench $(addprefix --bench ,$(CRITERION))

# The build of the server without optimization across crates takes half the time. The sequences of `diff` are the same in each
# run, so that what fails is the change; by hand, each run has new ones.
ci: PROFILE = unlinked
ci: SEED = 31337
ci: setup tools verify test simulate slow compat diff torture ## everything a change must pass, on a bare machine too

etcdctl:
	@test -n "$$KVIST_ETCDCTL" || command -v etcdctl >/dev/null || { \
	  echo "the tests need etcdctl: run make setup (or apt-get install etcd-client), or set KVIST_ETCDCTL" >&2; exit 1; }
