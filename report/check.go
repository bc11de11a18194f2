package report

import (
	"fmt"
	"math"
	"strings"
)

// checkWorker checks one worker of an untrusted stream, computes its summaries
// anew, and drops samples that are not to be kept.
func (d *decoder) checkWorker(w *Worker) error {
	if w.GroupIndex < 0 || w.Index < 0 || w.TID < 0 {
		return fmt.Errorf("%w: negative tid, group_index or index", ErrCorrupt)
	}
	if w.GroupIndex >= d.limits.Groups {
		return fmt.Errorf("%w: group_index %d, at most %d", ErrLimit, w.GroupIndex, d.limits.Groups-1)
	}
	if !w.Completed && w.ExitInfo == nil {
		w.ExitInfo = &ExitInfo{Kind: ExitWaitFailed, Text: "the report says nothing about its end"}
	}
	if e := w.ExitInfo; e != nil {
		if err := d.checkText("exit_info", &e.Kind, &e.Text); err != nil {
			return err
		}
		if err := d.checkTexts("exit_info.stack", e.Stack); err != nil {
			return err
		}
	}
	if err := d.checkText("worker", &w.WorkType, &w.CPUsUsed); err != nil {
		return err
	}
	if err := new(cpuSet).add(w.CPUsUsed); err != nil {
		return fmt.Errorf("%w: cpus_used: %w", ErrCorrupt, err)
	}
	if err := d.checkOutputs(w); err != nil {
		return err
	}
	if err := checkKeys(d, "numa_pages", w.NUMAPages); err != nil {
		return err
	}
	if err := d.checkSoftErrors(w); err != nil {
		return err
	}
	if err := d.checkSettings(w); err != nil {
		return err
	}
	if err := d.checkLatencies(w.latencies()); err != nil {
		return err
	}
	for i := range w.Phases {
		if err := d.checkPhase(&w.Phases[i]); err != nil {
			return fmt.Errorf("%w (phases[%d])", err, i)
		}
	}
	return nil
}

// checkPhase checks one slice of a worker's phases as the worker itself.
func (d *decoder) checkPhase(p *PhaseSlice) error {
	if err := new(cpuSet).add(p.CPUsUsed); err != nil {
		return fmt.Errorf("%w: cpus_used: %w", ErrCorrupt, err)
	}
	if err := checkKeys(d, "numa_pages", p.NUMAPages); err != nil {
		return err
	}
	return d.checkLatencies(p.latencies())
}

func (d *decoder) checkSoftErrors(w *Worker) error {
	if err := checkKeys(d, "soft_errors", w.SoftErrors); err != nil {
		return err
	}
	for k, v := range w.SoftErrors {
		if err := d.checkText("soft_errors", &v); err != nil {
			return err
		}
		w.SoftErrors[k] = v
	}
	return nil
}

func (d *decoder) checkSettings(w *Worker) error {
	if err := checkKeys(d, "settings", w.Settings); err != nil {
		return err
	}
	for k, v := range w.Settings {
		if err := d.checkText("settings", &v.Asked, &v.Got); err != nil {
			return err
		}
		w.Settings[k] = v
	}
	return nil
}

func (d *decoder) checkLatencies(all [3]namedLatency) error {
	for _, l := range all {
		if l.lat == nil {
			continue
		}
		if len(l.lat.Samples) > d.limits.Samples {
			return fmt.Errorf("%w: %s has %d samples, at most %d", ErrLimit, l.name, len(l.lat.Samples), d.limits.Samples)
		}
		if !d.limits.KeepSamples {
			l.lat.Samples = nil
		}
		if err := l.lat.check(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, l.name, err)
		}
		if len(l.lat.Buckets) > 0 {
			l.lat.Summarize()
		}
	}
	return nil
}

// check reports what cannot be true of a population. Figures that disagree by
// little are a killed worker's, and are left to Summarize.
func (l *Latency) check() error {
	var end, count uint64
	for i, b := range l.Buckets {
		switch {
		case b.Width == 0 || b.Count == 0:
			return fmt.Errorf("bucket %d is empty", i)
		case b.Lo < end:
			return fmt.Errorf("bucket %d at %d ns starts before the end of the one before", i, b.Lo)
		case b.Lo > math.MaxUint64-b.Width || count > math.MaxUint64-b.Count:
			return fmt.Errorf("bucket %d overflows", i)
		}
		end = b.Lo + b.Width
		count += b.Count
	}
	if len(l.Buckets) > 0 {
		return nil
	}
	order := [...]uint64{l.Min, l.P50, l.P90, l.P99, l.P999, l.Max}
	for i := 1; i < len(order); i++ {
		if order[i-1] > order[i] {
			return fmt.Errorf("percentiles are out of order: %d", order)
		}
	}
	return nil
}

// checkText bounds texts and makes them valid UTF-8.
func (d *decoder) checkText(field string, texts ...*string) error {
	for _, t := range texts {
		if len(*t) > d.limits.Text {
			return fmt.Errorf("%w: %s: text of %d bytes, at most %d", ErrLimit, field, len(*t), d.limits.Text)
		}
		*t = strings.ToValidUTF8(*t, "\uFFFD")
	}
	return nil
}

func (d *decoder) checkTexts(field string, texts []string) error {
	for i := range texts {
		if err := d.checkText(field, &texts[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkKeys bounds the keys of a map. Invalid UTF-8 in a key is refused: two
// keys could become one.
func checkKeys[V any](d *decoder, field string, m map[string]V) error {
	for k := range m {
		if len(k) > d.limits.Text {
			return fmt.Errorf("%w: %s: key of %d bytes, at most %d", ErrLimit, field, len(k), d.limits.Text)
		}
		if strings.ToValidUTF8(k, "") != k {
			return fmt.Errorf("%w: %s: key %q is not UTF-8", ErrCorrupt, field, k)
		}
	}
	return nil
}
