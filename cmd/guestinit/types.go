package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/guestinit/guestinit/launch"
	"github.com/guestinit/guestinit/worker"
)

// typeInfo is a work type as `types --json` shows it.
type typeInfo struct {
	Name      string      `json:"name"`
	Family    string      `json:"family"`
	Summary   string      `json:"summary"`
	GroupSize int         `json:"group_size"` // at default parameters
	Latencies []string    `json:"latencies"`
	Params    []paramInfo `json:"params"`
}

type paramInfo struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Default string   `json:"default"`
	Min     string   `json:"min,omitempty"`
	Max     string   `json:"max,omitempty"`
	Values  []string `json:"values,omitempty"`
	Summary string   `json:"summary"`
}

func setUpTypes(fs *flag.FlagSet) func([]string, streams) int {
	asJSON := fs.Bool("json", false, "print JSON")
	return func(args []string, io streams) int {
		if len(args) > 0 {
			return fail(io, launch.Usage, fmt.Errorf("types: takes no arguments, got %q", args))
		}
		infos := make([]typeInfo, 0, len(worker.Types))
		for i := range worker.Types {
			infos = append(infos, describe(&worker.Types[i]))
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

func describe(t *worker.Type) typeInfo {
	in := worker.Instance{Type: t}
	info := typeInfo{Name: t.Name, Family: t.Family, Summary: t.Summary, Latencies: []string{}, Params: []paramInfo{}}
	for i := range t.Params {
		p := &t.Params[i]
		in.Values[i] = p.Default
		pi := paramInfo{Name: p.Name, Kind: p.Kind.String(), Default: p.Format(p.Default), Values: p.Values, Summary: p.Summary}
		if p.Values == nil {
			pi.Min, pi.Max = p.Format(p.Min), p.Format(p.Max)
		}
		info.Params = append(info.Params, pi)
	}
	info.GroupSize = in.GroupSize()
	for _, l := range []struct {
		promised bool
		name     string
	}{{t.Wake, "wake_latency_ns"}, {t.Cost, "iteration_cost_ns"}, {t.Timer, "timer_latency_ns"}} {
		if l.promised {
			info.Latencies = append(info.Latencies, l.name)
		}
	}
	return info
}

func printTypes(w io.Writer, infos []typeInfo) {
	for _, t := range infos {
		size := ""
		if t.GroupSize > 1 {
			size = fmt.Sprintf(", workers in groups of %d", t.GroupSize)
		}
		fmt.Fprintf(w, "%s (%s%s)\n  %s\n", t.Name, t.Family, size, t.Summary)
		for _, p := range t.Params {
			accepts := p.Min + " to " + p.Max
			if p.Values != nil {
				accepts = strings.Join(p.Values, ", ")
			}
			fmt.Fprintf(w, "    %-15s %s; default %s (%s)\n", p.Name, p.Summary, p.Default, accepts)
		}
	}
}
