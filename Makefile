# Postern. "make build" makes the binary, "make demo" shows it at work, "make test" is what CI runs, and "make check" the same
# with a look for known holes, which needs the network.

SHELL   := /bin/bash
GO      ?= go
BINARY  := postern
VERSION := $(shell git describe --tags --match 'v*' --dirty 2>/dev/null || echo v1.0.0-dev+$$(git rev-parse --short HEAD 2>/dev/null || echo unknown))
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null)
PKG     := github.com/postern-link/postern/coremain
LDFLAGS := -s -w -X $(PKG).version=$(VERSION) -X $(PKG).commit=$(COMMIT)
FUZZTIME ?= 30s
SOAKTIME ?= 30m
SOAKBYTES ?= 10000000000
VULNCHECK := v1.8.0

.DEFAULT_GOAL := build
.PHONY: build test check format vet unit rego bench bench-micro demo demo-check deps clean fuzz soak sbom reproducible vuln

# One static binary: no C library, no paths of the machine that built it.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BINARY) .
	@stat -c '$(BINARY): %s' $(BINARY) | numfmt --field=2 --to=si --suffix=B

# Everything. As root, with the tools of "make deps", nothing is skipped.
check: test vuln
test: deps format vet unit rego demo-check

format:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi

# In the way of "build", so that both compile the same. Then what stands in for the fast path on other systems; that it has what others
# use is for TestOtherSystems, as compiling those for another system takes minutes.
vet:
	CGO_ENABLED=0 $(GO) vet -trimpath ./...
	GOOS=darwin CGO_ENABLED=0 $(GO) vet -trimpath ./plugin/privatelink/fastpath

# The longest package begins first, and one package more than there are processors runs at a time: the tests wait a lot. "vet" has looked
# at them before. The second that the race detector adds to the end of each process is left out.
RACE := CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 $(GO) test -race -vet=off -timeout 15m
# Tests of ./proxy that use no engine, or each by themselves.
ENGINELESS := ^Test(Datagrams|Lines|Warm|FlowsFor|WordsOf|ReadStatus|Pace)|^Fuzz

unit:
	@if [ "$$(id -u)" != 0 ]; then \
		echo "##########################################################################"; \
		echo "# Not root: the tests that need network namespaces are SKIPPED, among    #"; \
		echo "# them most of integration/. Run \"make test\" as root for all of them.    #"; \
		echo "##########################################################################"; \
	fi
	CGO_ENABLED=1 $(GO) build -race ./coremain # all of the program, which integration builds while others are compiled
	$(RACE) -p $$(($$(nproc)+1)) $$(if [ "$$(id -u)" = 0 ]; then echo ./integration; fi) $$($(GO) list ./... | grep -v /integration)
	$(RACE) -tags portable -skip '$(ENGINELESS)' ./proxy # on the other engine

# The example with Open Policy Agent: a module of its own, so that the program depends on none of it.
rego:
	cd examples/policy-rego && $(GO) vet . && $(GO) test -timeout 3m .

# Installs the Debian packages that the tests, the benchmark and the demo need and that are missing.
deps:
	@.ci/deps

# Each fuzz target for FUZZTIME.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

# Flows of all kinds through the binary for SOAKTIME, and at least SOAKBYTES each way, then half as many each way through each engine
# with IPv4 and with IPv6, a gigabyte each way over a bad path (as root), and a hundred times the usual random schedules. Then 20,000 queries
# a second while all about the names changes, and a minute of a flood. It ends with the first fault. Not part of any other target.
soak: build
	$(GO) test ./soak -count 1 -timeout 0 -v -for $(SOAKTIME) -bytes $(SOAKBYTES) -binary '$(CURDIR)/$(BINARY)' | grep -v '^ *\[INFO\]'; exit $${PIPESTATUS[0]}
	$(GO) test ./proxy/engine -count 1 -timeout 2h -failfast -v -run 'TestTransfers|TestBadPath|TestSchedules' -transfer $$(($(SOAKBYTES)/2)) -path 1073741824 -schedules 2000000
	$(GO) test ./coremain -count 5 -failfast -v -run TestFastpathUnderChange -hold
	$(GO) test ./plugin/privatelink -count 1 -v -run TestD12Flood -flood 1m

# Known holes in what the program calls. Says so and fails nothing where the database can't be reached.
vuln:
	@.ci/vulncheck $(VULNCHECK)

# What the binary was built from, as it tells itself: CycloneDX, the same bytes for the same binary.
sbom: build
	@$(GO) run ./tools/sbom -version '$(VERSION)' $(BINARY) > $(BINARY).cdx.json
	@echo '$(BINARY).cdx.json: written'

# Builds twice, the second time from a copy in another directory and with an empty build cache, and compares. Takes minutes.
reproducible: build
	@set -e; dir=$$(mktemp -d); trap 'chmod -R u+w "$$dir"; rm -rf "$$dir"' EXIT; \
	git ls-files -z --cached | xargs -0 cp --parents -t "$$dir"; \
	cd "$$dir" && CGO_ENABLED=0 GOCACHE="$$dir/.cache" $(GO) build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o again . ; \
	cd '$(CURDIR)' && CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o "$$dir/once" . ; \
	cmp "$$dir/once" "$$dir/again" && sha256sum < "$$dir/once" | sed 's/-/$(BINARY): the same twice/'

# Measures Postern against its peers, side by side.
bench: deps build
	$(GO) run ./bench

# The Go benchmarks of the packages, in the form that benchstat reads.
bench-micro:
	@$(GO) test -run '^$$' -bench . -benchmem -count 6 -timeout 1h ./link/... ./policy/... ./plugin/... ./proxy/... ./store/...

# A provider, a node and what to try; Ctrl-C ends them. Needs curl, dig and openssl, and no root where
# they are installed.
demo:
	@.ci/deps --demo
	@$(MAKE) --no-print-directory build
	@examples/demo.sh

# The same without a person: runs each printed line and checks what comes.
demo-check: build
	@examples/demo.sh --check

clean:
	rm -rf $(BINARY) $(BINARY).cdx.json .demo bench/out
	$(GO) clean -testcache
