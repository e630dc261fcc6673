# The two that matter: `make run` and `make test`. Each does its own set-up; see `make help`.

SWIFT ?= swift
# Length of a fuzzing run of each target, and which targets; nothing: all.
SECONDS ?= 60
TARGETS ?=
export NO_APT ONCE

RELEASE := .build/release/pipelined
# The Swift runtime goes into the binary: it runs where no Swift is installed.
RELEASE_FLAGS := -c release --static-swift-stdlib

.PHONY: help run test bench example fuzz lint format deps build build-tests clean

help:
	@echo 'make run      a node with real backends, a table of real connections, and what to try next'
	@echo '              (ONCE=1 ends after the table)'
	@echo 'make test     lint, build, all tests (ARGUMENTS="--filter SystemTests" for some)'
	@echo 'make bench    the node against HAProxy, nginx and Envoy: some forty minutes (ARGUMENTS="--quick" for a look)'
	@echo 'make example  a daemon with a filter from outside of this package, built and used (Examples/geo-filter)'
	@echo 'make fuzz     the parsers against hostile bytes (SECONDS=60, TARGETS="Hello State"; all)'
	@echo 'make build    the release binary, $(RELEASE)'
	@echo 'make lint     what make test checks of the style;  make format  puts it right'
	@echo 'make deps     the Debian packages for all of it (NO_APT=1: install nothing, here and above)'
	@echo 'make clean    removes what was built'

run:
	@scripts/deps run
	@$(MAKE) --no-print-directory build
	@config/demo/run $(RELEASE)

test:
	@scripts/deps test
	@$(MAKE) --no-print-directory lint build-tests
	@python3 -m unittest discover --quiet -s Benchmarks/driver -p 'test_*.py' -t Benchmarks
	@scripts/test $(ARGUMENTS)

bench:
	@scripts/deps bench
	@$(MAKE) --no-print-directory build
	@scripts/build $(RELEASE_FLAGS) --product instructions
	@scripts/build $(RELEASE_FLAGS) --product names
	@Benchmarks/run $(ARGUMENTS)

# Some minutes: it builds the whole package again, as a dependency. Not a part of make test; .ci/run runs it.
example:
	@scripts/deps build
	@Examples/geo-filter/test

fuzz:
	@scripts/deps build
	@Fuzz/run $(SECONDS) $(TARGETS)

lint:
	@$(SWIFT) format lint --strict --parallel -r Sources Tests Examples/*/Sources Package.swift
	@scripts/tidy
	@python3 -B -m unittest discover --quiet -s scripts/tidying -p 'test_*.py' -t scripts

format:
	@$(SWIFT) format -i --parallel -r Sources Tests Examples/*/Sources Package.swift
	@scripts/tidy --wrap

deps:
	@scripts/deps all

build:
	@scripts/build $(RELEASE_FLAGS) --product pipelined

build-tests:
	@scripts/build --build-tests

clean:
	@rm -rf .build
