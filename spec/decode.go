package spec

import (
	"fmt"
	"math"
	"strings"
)

// decoder fills a Spec from nodes and collects what is wrong.
type decoder struct {
	name   string
	errs   []*Error
	at     map[string]*node // path → node, for errors found later
	broken map[string]bool  // paths of fields that were not read, and of objects with a key that is not known
	left   int              // nodes of parameters that may still be visited: aliases may multiply them
}

// field is one key of an object and how its value is read.
type field struct {
	name string
	read func(n *node, path string)
}

func (d *decoder) errorf(n *node, path, format string, args ...any) {
	d.errs = append(d.errs, &Error{Name: d.name, Line: n.line, Col: n.col, Path: path, Msg: fmt.Sprintf(format, args...)})
	d.broken[path] = true
}

// object reads the members of n by fields. Unknown keys and keys without a value
// are errors.
func (d *decoder) object(n *node, path string, fields ...field) {
	if n.kind != kindObject {
		d.errorf(n, path, "is %s, want an object", n.kind)
		return
	}
	for i := range n.members {
		d.member(&n.members[i], path, fields)
	}
}

func (d *decoder) member(m *member, path string, fields []field) {
	at := join(path, m.key)
	names := make([]string, len(fields))
	for i, f := range fields {
		if names[i] = f.name; f.name != m.key {
			continue
		}
		d.at[at] = m.value
		if m.value.kind == kindNull {
			d.errorf(&node{line: m.line, col: m.col}, at, "has no value; give it one or leave it out")
			return
		}
		f.read(m.value, at)
		return
	}
	d.broken[path] = true // what is missing may be what was misspelt
	d.errorf(&node{line: m.line, col: m.col}, join(path, clipKey(m.key)), "unknown field%s", suggest(m.key, names))
}

// needs is object for values of which none may be left out.
func (d *decoder) needs(n *node, path string, fields ...field) {
	d.object(n, path, fields...)
	if n.kind != kindObject || d.broken[path] {
		return
	}
	for _, f := range fields {
		if n.get(f.name) == nil {
			d.errorf(n, join(path, f.name), "is missing")
		}
	}
}

// clipKey is a key fit for a path in an error message.
func clipKey(key string) string {
	if q := quote(key); q != `"`+key+`"` || strings.ContainsAny(key, ".[]: ") {
		return q
	}
	return key
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// list reads the items of n one by one.
func (d *decoder) list(n *node, path string, read func(i int, n *node, path string)) {
	if n.kind != kindList {
		d.errorf(n, path, "is %s, want a list", n.kind)
		return
	}
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.at[at] = item
		read(i, item, at)
	}
}

// The readers of single fields.

func (d *decoder) text(to *string) func(*node, string) {
	return func(n *node, path string) {
		if n.kind != kindString {
			remedy := ""
			if n.text != "" {
				remedy = "; quote it: " + quote(n.text)
			}
			d.errorf(n, path, "is %s, want text%s", n.kind, remedy)
			return
		}
		if *to = n.text; n.text == "" {
			d.errorf(n, path, "is empty; give it a value or leave it out")
		}
	}
}

func (d *decoder) boolean(to *bool) func(*node, string) {
	return func(n *node, path string) {
		v, ok := n.value.(bool)
		if !ok {
			d.errorf(n, path, "is %s, want true or false", describe(n))
			return
		}
		*to = v
	}
}

func (d *decoder) integer(lo, hi int64, to func(int64)) func(*node, string) {
	return func(n *node, path string) {
		v, ok := n.value.(int64)
		if !ok {
			if _, big := n.value.(uint64); big {
				d.errorf(n, path, "%s is out of range; %d to %d", n.text, lo, hi)
				return
			}
			d.errorf(n, path, "is %s, want a whole number", describe(n))
			return
		}
		if v < lo || v > hi {
			d.errorf(n, path, "%d is out of range; %d to %d", v, lo, hi)
			return
		}
		to(v)
	}
}

func (d *decoder) duration(to *Duration) func(*node, string) {
	return func(n *node, path string) {
		switch n.kind {
		case kindNumber:
			d.errorf(n, path, "%s has no unit; write %ss or %sms", n.text, n.text, n.text)
		case kindString:
			v, err := ParseDuration(n.text)
			if err != nil {
				d.errorf(n, path, "%v", err)
			}
			*to = v
		default:
			d.errorf(n, path, "is %s, want a duration such as 10ms or 2.5s", n.kind)
		}
	}
}

// cpuList reads "0-3,8", a number, or a list of numbers.
func (d *decoder) cpuList(to *CPUList) func(*node, string) {
	return func(n *node, path string) {
		text := n.text
		if n.kind == kindList {
			parts := make([]string, len(n.items))
			for i, item := range n.items {
				if _, ok := item.value.(int64); !ok {
					d.broken[path] = true
					d.errorf(item, fmt.Sprintf("%s[%d]", path, i), "is %s, want a number", describe(item))
					return
				}
				parts[i] = item.text
			}
			text = strings.Join(parts, ",")
		} else if n.kind != kindString && n.kind != kindNumber {
			d.errorf(n, path, "is %s, want a list such as 0-3,8", n.kind)
			return
		}
		list, err := ParseCPUList(text)
		if err != nil {
			d.errorf(n, path, "%v", err)
			return
		}
		*to = list
	}
}

// describe is a scalar's kind and text.
func describe(n *node) string {
	if n.text == "" {
		return n.kind.String()
	}
	return fmt.Sprintf("%s (%s)", n.kind, quote(n.text))
}

// The objects of a spec.

func (d *decoder) spec(n *node, s *Spec) {
	d.at[""] = n
	d.object(n, "",
		field{"version", d.integer(1, math.MaxInt32, func(v int64) { s.Version = int(v) })},
		field{"name", d.text(&s.Name)},
		field{"duration", d.duration(&s.Duration)},
		field{"deadline", d.duration(&s.Deadline)},
		field{"clone_mode", d.text(&s.CloneMode)},
		field{"samples", d.boolean(&s.Samples)},
		field{"checks", func(n *node, path string) { s.Checks = d.checks(n, path) }},
		field{"groups", func(n *node, path string) { d.groups(n, path, &s.Groups) }},
		field{"cgroups", func(n *node, path string) { d.cgroups(n, path, &s.Cgroups) }},
		field{"backdrop", func(n *node, path string) { s.Backdrop = d.backdrop(n, path) }},
		field{"steps", func(n *node, path string) {
			d.list(n, path, func(_ int, n *node, path string) {
				s.Steps = append(s.Steps, Step{})
				d.step(n, path, &s.Steps[len(s.Steps)-1])
			})
		}},
		field{"scheduler", func(n *node, path string) { s.Scheduler = d.scheduler(n, path) }},
	)
	for _, name := range []string{"duration", "deadline"} { // 0 would become the default
		if v := n.get(name); v != nil && v.kind == kindString && isZero(v.text) {
			d.errorf(v, name, "is 0; give it a value or leave it out")
		}
	}
}

func isZero(text string) bool {
	v, err := ParseDuration(text)
	return err == nil && v == 0
}

func (d *decoder) group(n *node, path string, g *Group) {
	d.object(n, path, append([]field{
		{"name", d.text(&g.Name)},
		{"workers", d.integer(1, MaxGroupWorkers, func(v int64) { g.Workers = int(v) })},
		{"workers_pct", func(n *node, at string) {
			d.percent(&g.WorkersPct, MaxWorkersPct)(n, at)
			d.broken[path+".workers"] = d.broken[at] // it is not missing
		}},
		{"work", func(n *node, path string) { d.work(n, path, &g.Work) }},
		{"checks", func(n *node, path string) { g.Checks = d.checks(n, path) }},
	}, d.attributes(attributes{&g.Affinity, &g.Sched, &g.MemPolicy, &g.Nice, &g.Comm, &g.Pcomm, &g.UID, &g.GID, &g.NUMANode})...)...)
}

// attributes points to what a group has and a cgroup's defaults have.
type attributes struct {
	affinity    **Affinity
	sched       **Sched
	memPolicy   **MemPolicy
	nice        **int
	comm, pcomm *string
	uid, gid    **uint32
	node        **int
}

func (d *decoder) defaults(n *node, path string) *Defaults {
	v := new(Defaults)
	d.object(n, path, d.attributes(attributes{&v.Affinity, &v.Sched, &v.MemPolicy, &v.Nice, &v.Comm, &v.Pcomm, &v.UID, &v.GID, &v.NUMANode})...)
	return v
}

func (d *decoder) attributes(a attributes) []field {
	return []field{
		{"affinity", func(n *node, path string) { *a.affinity = d.affinity(n, path) }},
		{"sched", func(n *node, path string) { *a.sched = d.sched(n, path) }},
		{"mem_policy", func(n *node, path string) { *a.memPolicy = d.memPolicy(n, path) }},
		{"nice", d.integer(-20, 19, func(v int64) { i := int(v); *a.nice = &i })},
		{"comm", d.text(a.comm)},
		{"pcomm", d.text(a.pcomm)},
		{"uid", d.integer(0, maxID, func(v int64) { u := uint32(v); *a.uid = &u })},
		{"gid", d.integer(0, maxID, func(v int64) { u := uint32(v); *a.gid = &u })},
		{"numa_node", d.integer(0, MaxNUMANode, func(v int64) { i := int(v); *a.node = &i })},
	}
}

// maxID is the highest user or group id; the one above means "none" to the kernel.
const maxID = math.MaxUint32 - 1

// work reads {type: NAME, parameters...} or a bare NAME.
func (d *decoder) work(n *node, path string, w *Work) {
	if n.kind != kindObject {
		d.text(&w.Type)(n, path)
		return
	}
	for _, m := range n.members {
		at := join(path, m.key)
		d.at[at] = m.value
		if m.key == "type" {
			d.text(&w.Type)(m.value, at)
			continue
		}
		if v, ok := d.param(m.value, at); ok {
			if w.Params == nil {
				w.Params = map[string]any{}
			}
			w.Params[m.key] = v
		}
	}
}

// param turns a node into the value of a parameter.
func (d *decoder) param(n *node, path string) (v any, ok bool) {
	if d.left--; d.left < 0 {
		if d.left == -1 {
			d.errorf(n, path, "has too many values; at most %d in one spec", maxNodes)
		}
		return nil, false
	}
	switch n.kind {
	case kindNull:
		d.errorf(n, path, "has no value; give it one or leave it out")
		return nil, false
	case kindList:
		list := make([]any, 0, len(n.items))
		for i, item := range n.items {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.at[at] = item
			if v, ok = d.param(item, at); !ok {
				return nil, false
			}
			list = append(list, v)
		}
		return list, true
	case kindObject:
		object := make(map[string]any, len(n.members))
		for _, m := range n.members {
			d.at[join(path, m.key)] = m.value
			if v, ok = d.param(m.value, join(path, m.key)); !ok {
				return nil, false
			}
			object[m.key] = v
		}
		return object, true
	}
	return n.value, true
}

// sched reads a policy, or a bare name of one.
func (d *decoder) sched(n *node, path string) *Sched {
	s := new(Sched)
	if n.kind == kindString {
		s.Policy = n.text
		return s
	}
	d.object(n, path,
		field{"policy", d.text(&s.Policy)},
		field{"priority", d.integer(1, 99, func(v int64) { s.Priority = int(v) })},
		field{"runtime", d.duration(&s.Runtime)},
		field{"deadline", d.duration(&s.Deadline)},
		field{"period", d.duration(&s.Period)},
	)
	return s
}

// memPolicy reads a policy, or a bare mode.
func (d *decoder) memPolicy(n *node, path string) *MemPolicy {
	m := new(MemPolicy)
	if n.kind == kindString {
		m.Mode = n.text
		return m
	}
	d.object(n, path,
		field{"mode", d.text(&m.Mode)},
		field{"nodes", d.cpuList(&m.Nodes)},
		field{"flags", func(n *node, path string) {
			if n.kind == kindString {
				m.Flags = []string{n.text}
				return
			}
			d.list(n, path, func(_ int, n *node, path string) {
				var flag string
				d.text(&flag)(n, path)
				m.Flags = append(m.Flags, flag)
			})
		}},
	)
	return m
}
