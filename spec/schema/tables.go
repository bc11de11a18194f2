package schema

import (
	"fmt"
	"reflect"

	"github.com/guestinit/guestinit/spec"
)

// Patterns of text forms: all that the validator takes, and little else. What it
// takes of numbers with leading zeros, of signs and of white space is in them too.
const (
	durationUnit    = `(ns|us|µs|μs|ms|s|m|h)`
	durationText    = `\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)` + durationUnit + `)+)`
	durationPattern = `^(` + durationText + `|-(0|((0+(\.0*)?|\.0+)` + durationUnit + `)+))$` // no less than 0
	paramPattern    = `^` + durationText + `$`                                                // of a work type
	listPart        = `\s*[0-9]+(-[0-9]+(:[0-9]+/[0-9]+)?)?\s*`
	listPattern     = `^` + listPart + `(,` + listPart + `)*$`
	anyListPattern  = `^(\s*|` + listPart + `(,` + listPart + `)*)$` // or an empty one
	bytesPattern    = `^\s*(max|[0-9]+[KMGTkmgt]?)\s*$`
	cpuMaxPattern   = `^\s*((max|\+?0*[1-9][0-9]{3,})(\s+\+?0*([1-9][0-9]{3,5}|1000000))?|0*[1-9][0-9]*(\.[0-9]{0,2})?\s*%)\s*$`
	pidsPattern     = `^(max|\+?0*[1-9][0-9]{0,6})$`
	hundredPattern  = `^\s*(max|0*(100(\.0{0,2})?|[0-9]{1,2}(\.[0-9]{0,2})?)\s*%?)\s*$`
	thousandPattern = `^\s*(max|0*(1000(\.0{0,2})?|[0-9]{1,3}(\.[0-9]{0,2})?)\s*%?)\s*$`
	zeroPattern     = `^\s*0*(\.0*)?\s*%?\s*$`
	pathPattern     = `^/[^\x00]*$`
	cgroupPattern   = `\.*[A-Za-z0-9_:@-][A-Za-z0-9_.:@-]*`
)

// percent is a number or a text of a pattern, up to highest; above 0 if it has to
// be something.
func percent(pattern string, highest int, positive bool) object {
	s := object{"type": []string{"string", "number"}, "minimum": 0, "maximum": highest, "pattern": pattern}
	if positive {
		delete(s, "minimum")
		s["exclusiveMinimum"], s["not"] = 0, object{"type": "string", "pattern": zeroPattern}
	}
	return s
}

// valueForm is the schema of a type of package spec that is written as text or as
// a number; nil for all others.
func valueForm(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[spec.Duration]():
		return object{"type": "string", "pattern": durationPattern}
	case reflect.TypeFor[spec.CPUList]():
		return object{"type": []string{"string", "integer", "array"}, "pattern": listPattern, "minimum": 0, "maximum": spec.MaxCPU - 1, "minItems": 1,
			"items": object{"type": "integer", "minimum": 0, "maximum": spec.MaxCPU - 1}}
	case reflect.TypeFor[spec.Percent]():
		return percent(hundredPattern, 100, false)
	case reflect.TypeFor[spec.Bytes]():
		return object{"type": []string{"string", "integer"}, "minimum": 0, "pattern": bytesPattern}
	case reflect.TypeFor[spec.CPUMax]():
		return object{"type": []string{"string", "integer"}, "minimum": spec.MinQuotaUs, "pattern": cpuMaxPattern}
	case reflect.TypeFor[spec.PidsMax]():
		return object{"type": []string{"string", "integer"}, "minimum": 1, "maximum": spec.MaxPids, "pattern": pidsPattern}
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
		share := percent(hundredPattern, 100, true)
		share["type"], share["allOf"] = "string", []any{object{"pattern": "%$"}}
		return []any{object{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, object{"type": "string", "pattern": durationPattern}, object{"const": "full"}, share}
	case "Loop":
		return []any{object{"type": "string", "pattern": durationPattern}}
	case "Scheduler", "Program":
		return []any{object{"type": "string", "pattern": pathPattern, "maxLength": spec.MaxProgramText}}
	case "WaitProgram":
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
		return (*builder).addedCgroup
	case "Hold.fraction":
		return func(*builder) object {
			text := percent(hundredPattern, 100, true)
			text["type"] = "string"
			return object{"anyOf": []any{object{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, object{"const": "full"}, text}}
		}
	case "Group.workers_pct":
		return func(*builder) object { return percent(thousandPattern, 1000, true) }
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

// addedCgroup is a cgroup whose name may be a path, or that path alone.
func (b *builder) addedCgroup() object {
	const name = "AddedCgroup"
	path := object{"type": "string", "pattern": "^" + cgroupPattern + "(/" + cgroupPattern + ")*$",
		"not": object{"type": "string", "pattern": fmt.Sprintf("[^/]{%d}", spec.MaxCgroupNameLen+1)}}
	if _, made := b.defs[name]; !made {
		b.defs[name] = true
		def := b.structure(reflect.TypeFor[spec.Cgroup]())
		def["properties"].(object)["name"] = path
		b.defs[name] = def
	}
	return object{"anyOf": []any{object{"$ref": "#/$defs/" + name}, path}}
}

// bounds are the ranges of single fields, beside their type. The validator has
// them from the same constants; a test holds both at every end of each range.
func bounds(name string) object {
	within := func(lo, hi any) object { return object{"minimum": lo, "maximum": hi} }
	oneOf := func(words ...string) object { return object{"enum": words} }
	switch name {
	case "Spec.version":
		return object{"const": spec.Version}
	case "Spec.name", "Group.name", "Step.name", "Program.name":
		return object{"maxLength": spec.MaxNameLen}
	case "Cgroup.name":
		return object{"maxLength": spec.MaxCgroupNameLen, "pattern": "^" + cgroupPattern + "$"}
	case "Cgroup.cpuset.mems":
		return object{"maximum": spec.MaxNUMANode}
	case "MemPolicy.nodes":
		return object{"maximum": spec.MaxNUMANode, "pattern": anyListPattern, "minItems": 0}
	case "Scheduler.path", "Program.path":
		return object{"maxLength": spec.MaxProgramText, "pattern": pathPattern}
	case "Scheduler.args", "Program.args":
		return object{"maxItems": spec.MaxProgramWords}
	case "Program.env":
		return object{"maxItems": spec.MaxProgramWords, "items": object{"type": "string", "pattern": `^[\s\S]+=`}}
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
		return object{"minItems": 2, "maxItems": 2, "uniqueItems": true, "items": object{"type": []string{"string", "number"}, "minLength": 1}}
	}
	return nil
}
