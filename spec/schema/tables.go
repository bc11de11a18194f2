package schema

import (
	"reflect"

	"github.com/guestinit/guestinit/spec"
)

// Patterns of text forms: all that the validator takes, and little else.
const (
	durationPattern = `^[+-]?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)$`
	listPattern     = `^[0-9,:/ -]*$`
)

// valueForm is the schema of a type of package spec that is written as text or as
// a number; nil for all others.
func valueForm(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[spec.Duration]():
		return object{"type": "string", "pattern": durationPattern}
	case reflect.TypeFor[spec.CPUList]():
		return object{"type": []string{"string", "integer", "array"}, "pattern": listPattern, "minimum": 0, "maximum": spec.MaxCPU - 1,
			"items": object{"type": "integer", "minimum": 0, "maximum": spec.MaxCPU - 1}}
	case reflect.TypeFor[spec.Percent](), reflect.TypeFor[spec.Bytes](), reflect.TypeFor[spec.CPUMax](), reflect.TypeFor[spec.PidsMax]():
		return object{"type": []string{"string", "number"}, "minimum": 0}
	}
	return nil
}

// otherForms are what may stand in place of an object.
func otherForms(name string) []any {
	text := object{"type": "string", "minLength": 1}
	switch name {
	case "Affinity":
		return []any{object{"enum": []string{"inherit", spec.AffinitySingleCPU, spec.AffinityLLCAligned, spec.AffinityCrossCgroup, spec.AffinitySMTSiblingPair}},
			valueForm(reflect.TypeFor[spec.CPUList]())}
	case "Cpuset":
		return []any{valueForm(reflect.TypeFor[spec.CPUList]())}
	case "Sched":
		return []any{object{"enum": []string{spec.SchedNormal, spec.SchedBatch, spec.SchedIdle, spec.SchedExt}}}
	case "MemPolicy":
		return []any{object{"enum": []string{spec.MemDefault, spec.MemLocal}}}
	case "Hold":
		return []any{object{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, object{"type": "string", "anyOf": []any{
			object{"pattern": durationPattern}, object{"const": "full"}, object{"pattern": "%$"}}}}
	case "Loop":
		return []any{object{"type": "string", "pattern": durationPattern}}
	case "Scheduler", "Program", "WaitProgram":
		return []any{text}
	}
	return nil
}

// together says which fields of a struct go together.
func together(name string) object {
	one := object{"minProperties": 1, "maxProperties": 1}
	switch name {
	case "Affinity", "Cpuset", "Op":
		return one
	case "ChecksOf":
		return object{"oneOf": []any{object{"required": []string{"cgroup"}}, object{"required": []string{"group"}}}}
	case "Group":
		return object{"oneOf": []any{object{"required": []string{"workers"}}, object{"required": []string{"workers_pct"}}}}
	}
	return nil
}

// specialField is what makes the schema of a field that its type does not tell;
// nil for all others.
func specialField(name string) func(b *builder) object {
	switch name {
	case "Op.add_cgroup":
		return func(b *builder) object {
			return object{"anyOf": []any{b.ref(reflect.TypeFor[spec.Cgroup]()), object{"type": "string", "minLength": 1}}}
		}
	case "Hold.fraction":
		return func(*builder) object {
			return object{"type": []string{"number", "string"}, "exclusiveMinimum": 0, "maximum": 1}
		}
	case "Cgroup.cpu.idle":
		return func(*builder) object { return object{"enum": []any{true, false, 0, 1}} }
	case "MemPolicy.flags":
		return func(*builder) object {
			flags := object{"enum": []string{spec.MemStaticNodes, spec.MemRelativeNodes, spec.MemNUMABalancing}}
			return object{"anyOf": []any{flags, object{"type": "array", "items": flags}}}
		}
	}
	return nil
}

// bounds are the ranges of single fields, beside their type. The validator has
// them from the same constants; a test holds both at every end of each range.
func bounds(name string) object {
	within := func(lo, hi any) object { return object{"minimum": lo, "maximum": hi} }
	oneOf := func(words ...string) object { return object{"enum": words} }
	switch name {
	case "Spec.version":
		return object{"const": spec.Version}
	case "Spec.name", "Group.name", "Step.name":
		return object{"maxLength": spec.MaxNameLen}
	case "Spec.clone_mode":
		return oneOf(spec.Fork, spec.Thread)
	case "Group.workers":
		return within(1, spec.MaxGroupWorkers)
	case "Group.nice", "Defaults.nice":
		return within(-20, 19)
	case "Group.comm", "Group.pcomm", "Defaults.comm", "Defaults.pcomm":
		return object{"maxLength": spec.MaxCommLen}
	case "Group.uid", "Group.gid", "Defaults.uid", "Defaults.gid":
		return within(0, uint32(1<<32-2))
	case "Group.numa_node", "Defaults.numa_node", "Cpuset.numa":
		return within(0, spec.MaxNUMANode)
	case "Sched.policy":
		return oneOf(spec.SchedNormal, spec.SchedBatch, spec.SchedIdle, spec.SchedFIFO, spec.SchedRoundRobin, spec.SchedDeadline, spec.SchedExt)
	case "Sched.priority":
		return within(1, 99)
	case "MemPolicy.mode":
		return oneOf(spec.MemDefault, spec.MemBind, spec.MemPreferred, spec.MemInterleave, spec.MemLocal, spec.MemPreferredMany, spec.MemWeightedInterleave)
	case "Affinity.intent":
		return oneOf(spec.AffinitySingleCPU, spec.AffinityLLCAligned, spec.AffinityCrossCgroup, spec.AffinitySMTSiblingPair)
	case "RandomSubset.count", "CpusetPart.of", "CpusetOverlap.of":
		return within(1, spec.MaxCPU)
	case "CpusetPart.index", "CpusetOverlap.index", "Cpuset.llc":
		return within(0, spec.MaxCPU-1)
	case "CpusetRange.start", "CpusetRange.end", "CpusetOverlap.frac":
		return within(0, 1)
	case "Cgroup.cpu.weight", "Cgroup.io.weight":
		return within(1, spec.MaxWeight)
	case "Checks.max_off_cpu_spread_pct", "Checks.max_steal_pct":
		return within(0, 100)
	case "Checks.min_page_locality":
		return within(0, 1)
	case "Checks.max_throughput_cv", "Checks.min_work_rate", "Checks.min_iteration_rate", "Checks.max_wake_latency_cv",
		"Checks.max_migration_ratio", "Checks.max_cross_node_migration_ratio":
		return object{"minimum": 0}
	case "Checks.unsound_timing":
		return oneOf(spec.TimingInconclusive, spec.TimingEnforce)
	case "Spec.steps":
		return object{"maxItems": spec.MaxSteps}
	case "Op.swap_cpusets":
		return object{"minItems": 2, "maxItems": 2}
	}
	return nil
}
