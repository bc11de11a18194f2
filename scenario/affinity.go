package scenario

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/topology"
)

// intends reports whether a group leaves its affinity to the topology.
func intends(g spec.Group) bool { return g.Affinity != nil && g.Affinity.Intent != "" }

// resolved is groups with their intents turned into CPUs, by the topology of
// this machine and within the CPUs that this process may use. The groups are
// untouched.
func resolved(groups []spec.Group) ([]spec.Group, error) {
	if !slices.ContainsFunc(groups, intends) {
		return groups, nil
	}
	t, err := topology.Read()
	if err != nil {
		return nil, err
	}
	allowed, err := allowedCPUs(t)
	if err != nil {
		return nil, err
	}
	groups = slices.Clone(groups)
	for i := range groups {
		if !intends(groups[i]) {
			continue
		}
		if groups[i].Affinity, err = t.Affinity(groups[i].Affinity, allowed); err != nil {
			return nil, fmt.Errorf("groups[%d].%w", i, err)
		}
	}
	return groups, nil
}

// unresolved is groups for a check that knows no topology: an intent counts as
// one that can be met.
func unresolved(groups []spec.Group) []spec.Group {
	if !slices.ContainsFunc(groups, intends) {
		return groups
	}
	groups = slices.Clone(groups)
	for i := range groups {
		if intends(groups[i]) {
			groups[i].Affinity = nil
		}
	}
	return groups
}

// allowedCPUs are the online CPUs that this process may use.
func allowedCPUs(t *topology.Topology) ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read own affinity: %w", err)
	}
	return slices.DeleteFunc(slices.Clone(t.Online), func(cpu int) bool { return !set.IsSet(cpu) }), nil
}
