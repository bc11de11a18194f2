package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/guestinit/guestinit/kernel"
	"github.com/guestinit/guestinit/launch"
)

func setUpKernelFetch(*flag.FlagSet) func([]string, streams) int {
	return func(args []string, io streams) int {
		if len(args) > 1 {
			return fail(io, launch.Usage, fmt.Errorf("kernel fetch: want one VERSION at most, got %q", args))
		}
		ctx, stop := interruptible()
		defer stop()
		k, err := kernel.Fetch(ctx, strings.Join(args, ""), io.err)
		if errors.Is(err, kernel.ErrVersion) {
			return fail(io, launch.Usage, err)
		}
		if err != nil {
			return fail(io, launch.Setup, err)
		}
		fmt.Fprintln(io.out, k.Dir)
		return launch.StatusPass
	}
}

func setUpKernelList(*flag.FlagSet) func([]string, streams) int {
	return func(args []string, io streams) int {
		if len(args) > 0 {
			return fail(io, launch.Usage, fmt.Errorf("kernel list: takes no arguments, got %q", args))
		}
		kernels, err := kernel.List()
		if err != nil {
			return fail(io, launch.Setup, err)
		}
		for _, k := range kernels {
			fmt.Fprintf(io.out, "%s\t%s\n", k.Release, k.Dir)
		}
		if len(kernels) == 0 {
			fmt.Fprintln(io.err, "guestinit: no kernels in the cache; `guestinit kernel fetch` gets one")
		}
		return launch.StatusPass
	}
}
