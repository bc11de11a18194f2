# guestinit. `make help` lists the targets.

GO      ?= go
BIN     := bin/guestinit
KERNELS := 6.1 6.12 7.2
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# Inlining makes code faster and larger. What runs once a boot, or on the host
# only, goes without: each MB of /init is 13 ms of boot under TCG.
COLD    := github.com/goccy/... github.com/fxamacker/... github.com/u-root/... github.com/therootcompany/... \
	github.com/pierrec/... encoding/json net regexp/... debug/... math/big crypto/... compress/... flag os/exec \
	./kernel ./qemu ./launch ./initramfs ./spec/... ./check ./topology ./scenario ./guest/... ./program ./scx ./cmd/guestinit
LDFLAGS := -s -w -X github.com/guestinit/guestinit/internal/firstline.Release=$(VERSION)

# Workers run outside the Go runtime; cgo has no part in any of it.
export CGO_ENABLED := 0

# What the tests and the image script run. Nothing is left out for want of a tool.
TOOLS := qemu-system-x86_64 cpio lz4 objdump readelf shellcheck socat strace xz zstd

.DEFAULT_GOAL := help
# Two targets that install Debian packages at once would meet at apt's lock.
.NOTPARALLEL:

##@ First steps

.PHONY: demo
demo: build deps ## boot a real kernel and run examples/quickstart.yaml there
	@kernel=$${GUESTINIT_KERNEL:-$$($(BIN) kernel fetch)} && \
	echo '$(BIN) run examples/quickstart.yaml' && \
	$(BIN) run --kernel "$$kernel" examples/quickstart.yaml

.PHONY: test
test: deps check kernels ## all checks and tests, boots of all three kernels included
	# One package at a time: the real-time workers of one would starve the guests of another.
	$(GO) test -p 1 -timeout 14m ./...

##@ Building

.PHONY: build
build: go-version ## write the static binary to bin/guestinit
	$(GO) build -trimpath $(COLD:%='-gcflags=%=-l') -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/guestinit

.PHONY: scx_fifo
scx_fifo: go-version ## write the small sched_ext scheduler of the examples to bin/scx_fifo
	$(GO) build -trimpath -ldflags '-s -w' -o bin/scx_fifo ./internal/scxfifo

.PHONY: go-version
go-version:
	@scripts/check-go.sh $(GO)

.PHONY: build-arm64
build-arm64: go-version ## compile and vet everything for arm64, assembly included
	GOARCH=arm64 $(GO) build ./...
	GOARCH=arm64 $(GO) vet ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

##@ Checking

.PHONY: check
check: build build-arm64 ## format, vet, shell scripts, binary size, both architectures
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofmt wants: $$out"; exit 1; }
	# The programs that tests build stand in testdata, which ./... leaves out.
	$(GO) vet ./... $$(git ls-files '*/testdata/*.go' | xargs -n1 dirname | sort -u | sed 's,^,./,')
	$(GO) mod verify >/dev/null
	scripts/install-tools.sh shellcheck readelf
	shellcheck scripts/*.sh .ci/run
	scripts/check-binary.sh $(BIN)

.PHONY: check-all
check-all: test ## everything, and the long matrix: 100 boots in a row, fuzzing
	GUESTINIT_LONG=1 $(GO) test -timeout 60m -run 'Long' -v ./spawn ./guest ./e2e
	scripts/fuzz.sh 30s

##@ Measuring

.PHONY: bench
bench: bench-spawn bench-stop bench-boot bench-vsock bench-fidelity ## all benchmarks, each side by side with what it is compared with

.PHONY: bench-spawn
bench-spawn: build ## births of workers against a C program that forks and a Go program that re-executes itself
	$(GO) run ./internal/bench/spawn

.PHONY: bench-stop
bench-stop: build deps kernels ## how soon workers of every type stop, and crowds that leave the spawner no CPU, in guests too
	$(GO) run ./internal/bench/stop -kernels "$(KERNELS)"

.PHONY: bench-fidelity
bench-fidelity: build ## work types beside cyclictest, hackbench, perf bench, stress-ng and a C program
	scripts/install-tools.sh cyclictest hackbench stress-ng perf gcc taskset || true
	$(GO) run ./internal/bench/fidelity

.PHONY: bench-boot
bench-boot: build deps kernels ## boots of guestinit against minimal C and Go programs as /init, all three kernels
	$(GO) run ./internal/bench/boot $(KERNELS)

.PHONY: bench-vsock
bench-vsock: build deps kernels ## the vsock device against virtio-serial and vhost-device-vsock (VHOST_DEVICE_VSOCK=FILE)
	$(GO) run ./internal/bench/vsock $(KERNELS)
	# The report of 200 workers with full reservoirs, against the bare link of the same guest.
	GUESTINIT_LONG=1 $(GO) test -count 1 -timeout 20m -run TestLongVMShips -v ./guest

##@ What the tests need

.PHONY: deps
deps: ## install QEMU and the tools of the tests from Debian packages, if missing
	scripts/install-tools.sh $(TOOLS)

.PHONY: kernels
kernels: build ## fetch the kernels of the tests into the user's cache, if missing
	@for k in $(KERNELS); do $(BIN) kernel fetch $$k >/dev/null || exit; done

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
