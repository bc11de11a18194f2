package worker

import "strings"

// Info is a work type for people and programs: a row of the table in words.
type Info struct {
	Name      string            `json:"name"`
	Family    string            `json:"family"`
	Summary   string            `json:"summary"`
	GroupSize int               `json:"group_size"`         // at default parameters
	Sized     bool              `json:"group_size_varies"`  // with the parameters
	Resource  string            `json:"resource,omitempty"` // what the workers share or are given
	Latencies []string          `json:"latencies"`          // the populations that it promises
	WakeRoles []int             `json:"wake_roles"`         // positions in a set that record wake latencies, at default parameters
	Refused   map[string]string `json:"refused_modes"`      // mode → why, and what to use
	Params    []ParamInfo       `json:"params"`
}

// ParamInfo is a parameter of a work type as a spec writes it.
type ParamInfo struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // count, duration, enum, bool, nodes, text, phases, list of texts, texts by name
	Unit    string   `json:"unit,omitempty"`
	Default string   `json:"default"`
	Min     string   `json:"min,omitempty"`
	Max     string   `json:"max,omitempty"`
	Values  []string `json:"values,omitempty"`
	Summary string   `json:"summary"`
}

// Describe puts a work type into words.
func Describe(t *Type) Info {
	in := Instance{Type: t}
	info := Info{Name: t.Name, Family: t.Family, Summary: t.Summary, Resource: t.Resource.String(),
		Latencies: []string{}, WakeRoles: []int{}, Refused: map[string]string{}, Params: []ParamInfo{}}
	for i := range t.Params {
		in.setDefault(i, &t.Params[i])
		info.Params = append(info.Params, t.Params[i].describe())
	}
	info.GroupSize = in.GroupSize()
	if t.GroupSize != nil {
		var least Instance
		for i := range t.Params {
			least.Values[i] = t.Params[i].Min
		}
		info.Sized = t.GroupSize(&least.Values) != info.GroupSize
	}
	for _, l := range []struct {
		promised bool
		name     string
	}{{t.Wake, "wake_latency_ns"}, {t.Cost, "iteration_cost_ns"}, {t.Timer, "timer_latency_ns"}} {
		if l.promised {
			info.Latencies = append(info.Latencies, l.name)
		}
	}
	for pos := range info.GroupSize {
		if in.Wakes(pos) {
			info.WakeRoles = append(info.WakeRoles, pos)
		}
	}
	for mode, why := range map[string]string{"fork": t.RefuseFork, "thread": t.RefuseThread, "container": t.RefuseContainer} {
		if why != "" {
			info.Refused[mode] = why
		}
	}
	return info
}

func (p *Param) describe() ParamInfo {
	info := ParamInfo{Name: p.Name, Kind: p.Kind.String(), Default: p.DefaultText(), Values: p.Values, Summary: p.Summary}
	switch p.Kind {
	case Count, Duration, Phases, Texts, Pairs:
		span := Param{Kind: Count} // of texts, where they are
		if p.Kind == Duration || p.Kind == Phases {
			span.Kind = Duration
		}
		info.Min, info.Max = span.Format(p.Min), span.Format(p.Max)
	}
	switch {
	case p.Kind == Duration:
		info.Unit = "ns to h"
	case strings.HasSuffix(p.Name, "_kib"):
		info.Unit = "KiB"
	case strings.HasSuffix(p.Name, "_hz"):
		info.Unit = "1/s"
	case p.Kind == Phases:
		info.Unit = "name: duration"
	case p.Kind == Texts, p.Kind == Pairs:
		info.Unit = "texts"
	}
	return info
}

// Accepts is what a parameter may be, in words.
func (p *ParamInfo) Accepts() string {
	switch {
	case p.Kind == "enum":
		return strings.Join(p.Values, ", ")
	case p.Kind == "phases":
		return strings.Join(p.Values, ", ") + ", each " + p.Min + " to " + p.Max
	case p.Kind == "bool":
		return "true, false"
	case p.Kind == "nodes":
		return "a list such as 0-3,8"
	case p.Kind == "text":
		return "text"
	}
	if p.Unit == "texts" {
		return p.Min + " to " + p.Max + " texts"
	}
	return p.Min + " to " + p.Max
}
