package report

import "fmt"

// Program is a program that ran beside the workers.
type Program struct {
	Name    string   `json:"name"`
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Cgroup  string   `json:"cgroup,omitempty"` // that it was born in
	Step    int      `json:"step,omitempty"`   // that it belonged to, from 1; 0 for one that lives through all of them
	Exit    string   `json:"exit"`             // how it ended, for people
	Code    int      `json:"code"`             // exit status; -1 if a signal ended it
	Signal  int      `json:"signal"`           // that ended it, or 0
	Stopped bool     `json:"stopped"`          // guestinit ended it, at the end of its step or before
	StartMs float64  `json:"start_ms"`         // since opening the gate
	RanMs   float64  `json:"ran_ms"`
	Output  string   `json:"output,omitempty"` // the first 40 and the last 16 KiB
}

// checkPrograms checks what the guest says of its programs.
func (d *decoder) checkPrograms(list []Program) error {
	for i := range list {
		p := &list[i]
		if p.StartMs < 0 || p.RanMs < 0 || p.Step < 0 {
			return fmt.Errorf("%w: run.programs[%d] has a negative figure", ErrCorrupt, i)
		}
		if err := d.checkText("run.programs", &p.Name, &p.Path, &p.Cgroup, &p.Exit, &p.Output); err != nil {
			return err
		}
		if err := d.checkTexts("run.programs.args", p.Args); err != nil {
			return err
		}
	}
	return nil
}
