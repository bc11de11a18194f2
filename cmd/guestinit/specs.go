package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/report"
	"github.com/guestinit/guestinit/scenario"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/spec/schema"
)

// maxSpec is the size of the largest spec that is read, in bytes.
const maxSpec = 16 << 20

// readSpec reads and checks the spec that the arguments name: a file, "-" for
// standard input, or nothing for the built-in quickstart.
func readSpec(args []string, stdin io.Reader) (*spec.Spec, error) {
	name, data := "quickstart", spec.Quickstart()
	switch {
	case len(args) > 1:
		return nil, fmt.Errorf("%d specs given, want one at most: %q", len(args), args)
	case len(args) == 1:
		var err error
		if name = args[0]; name == "-" {
			name = "stdin"
			data, err = readAll(stdin)
		} else {
			data, err = readFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("read spec: %w", err)
		}
	}
	return scenario.Parse(data, name)
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSpec+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSpec {
		return nil, fmt.Errorf("larger than %d MiB", maxSpec>>20)
	}
	return data, nil
}

func setUpSpecSchema(*flag.FlagSet) func([]string, streams) int {
	return func(args []string, io streams) int {
		if len(args) > 0 {
			return fail(io, launch.Usage, fmt.Errorf("spec schema: takes no arguments, got %q", args))
		}
		text, err := schema.Build()
		if err == nil {
			_, err = io.out.Write(text)
		}
		if err != nil {
			return fail(io, launch.Setup, fmt.Errorf("print schema: %w", err))
		}
		return launch.StatusPass
	}
}

func setUpSpecValidate(*flag.FlagSet) func([]string, streams) int {
	return func(args []string, io streams) int {
		if len(args) != 1 {
			return fail(io, launch.Usage, errors.New("spec validate: want one FILE, or - for standard input"))
		}
		s, err := readSpec(args, io.in)
		if err != nil {
			return fail(io, launch.Usage, err)
		}
		fmt.Fprintf(io.out, "%s: ok: %s in %s for %v\n", args[0], report.Plural(s.Workers(), "worker"), report.Plural(len(s.Placed()), "group"), s.Duration)
		return launch.StatusPass
	}
}
