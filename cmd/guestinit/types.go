package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/worker"
)

func setUpTypes(fs *flag.FlagSet) func([]string, streams) int {
	asJSON := fs.Bool("json", false, "print JSON")
	return func(args []string, io streams) int {
		if len(args) > 0 {
			return fail(io, launch.Usage, fmt.Errorf("types: takes no arguments, got %q", args))
		}
		infos := make([]worker.Info, 0, len(worker.Types))
		for i := range worker.Types {
			infos = append(infos, worker.Describe(&worker.Types[i]))
		}
		if *asJSON {
			enc := json.NewEncoder(io.out)
			enc.SetIndent("", "  ")
			if err := enc.Encode(infos); err != nil {
				return fail(io, launch.Setup, fmt.Errorf("write types: %w", err))
			}
			return launch.StatusPass
		}
		printTypes(io.out, infos)
		return launch.StatusPass
	}
}

func printTypes(w io.Writer, infos []worker.Info) {
	for i := range infos {
		t := &infos[i]
		size := ""
		if t.GroupSize > 1 {
			size = fmt.Sprintf(", workers in sets of %d", t.GroupSize)
		}
		fmt.Fprintf(w, "%s (%s%s)\n  %s\n", t.Name, t.Family, size, t.Summary)
		for _, mode := range slices.Sorted(maps.Keys(t.Refused)) {
			fmt.Fprintf(w, "    not in mode %s: %s\n", mode, t.Refused[mode])
		}
		for j := range t.Params {
			p := &t.Params[j]
			def := ""
			if p.Default != "" {
				def = "; default " + p.Default
			}
			fmt.Fprintf(w, "    %-15s %s%s (%s)\n", p.Name, p.Summary, def, p.Accepts())
		}
	}
}
