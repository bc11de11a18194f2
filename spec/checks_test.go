package spec

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const everyCheck = `{not_stuck: true, zero_progress: false, isolation: true, unsound_timing: enforce,
  max_gap: 2s, max_p50_wake_latency: 1us, max_p99_wake_latency: 1ms, max_p99_9_wake_latency: 2ms, max_wake_latency: 1s,
  max_p99_timer_latency: 3ms, max_off_cpu_spread_pct: 15, max_throughput_cv: 0.25, min_work_rate: 1000000, min_iteration_rate: 10,
  max_wake_latency_cv: 2, max_migration_ratio: 0, min_page_locality: 0.9, max_cross_node_migration_ratio: 0.1, max_steal_pct: 5}`

// Every field of Checks is read, validated and written.
func TestChecks(t *testing.T) {
	s, err := Parse([]byte("version: 1\nchecks: "+everyCheck+"\ngroups: [{workers: 1, work: spin_wait, checks: {max_gap: 1ms}}]\n"), "x")
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(s.Checks).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if v.Field(i).IsZero() {
			t.Errorf("%s was not read", name)
		}
		if !strings.Contains(everyCheck, name+":") {
			t.Errorf("%s is not in the test", name)
		}
	}
	if *s.Checks.MaxGap != Duration(2*time.Second) || *s.Checks.MinWorkRate != 1e6 || *s.Checks.ZeroProgress || s.Checks.UnsoundTiming != TimingEnforce {
		t.Errorf("%+v", s.Checks)
	}
	if *s.Groups[0].Checks.MaxGap != Duration(time.Millisecond) {
		t.Errorf("%+v", s.Groups[0].Checks)
	}
	checkRoundTrip(t, s)

	// Merging over nothing keeps all, merging over all takes all.
	if m := s.Checks.Merge(nil); !reflect.DeepEqual(m, s.Checks) || m == s.Checks {
		t.Errorf("%+v", m)
	}
	if m := (&Checks{}).Merge(s.Checks); !reflect.DeepEqual(m, s.Checks) {
		t.Errorf("%+v", m)
	}
}

func TestMergeChecks(t *testing.T) {
	base := &Checks{MaxGap: pointer(DefaultMaxGap), MinWorkRate: pointer(5.0), ZeroProgress: pointer(true), UnsoundTiming: TimingEnforce}
	over := &Checks{MaxGap: pointer(Duration(time.Second)), ZeroProgress: pointer(false), MaxMigration: pointer(0.5)}
	m := base.Merge(over)
	want := &Checks{MaxGap: over.MaxGap, MinWorkRate: base.MinWorkRate, ZeroProgress: over.ZeroProgress, MaxMigration: over.MaxMigration, UnsoundTiming: TimingEnforce}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("%+v", m)
	}
	if *base.MaxGap != DefaultMaxGap || !*base.ZeroProgress || base.MaxMigration != nil {
		t.Error("Merge changed what it merged over")
	}
	if m := (*Checks)(nil).Merge(over); !reflect.DeepEqual(m, over) {
		t.Errorf("%+v", m)
	}
	if m := (*Checks)(nil).Merge(nil); m != nil {
		t.Errorf("%+v", m)
	}
}

func TestIntents(t *testing.T) {
	for _, data := range []string{"llc_aligned", "{intent: llc_aligned}"} {
		s, err := Parse([]byte("version: 1\ngroups: [{workers: 1, work: spin_wait, affinity: "+data+"}]\n"), "x")
		if err != nil || !reflect.DeepEqual(s.Groups[0].Affinity, &Affinity{Intent: AffinityLLCAligned}) {
			t.Errorf("%s: %v, %+v", data, err, s)
			continue
		}
		checkRoundTrip(t, s)
	}
	for _, word := range affinityIntents() {
		c := new(checker)
		if c.affinity("a", &Affinity{Intent: word}); len(c.errs) > 0 {
			t.Errorf("%s: %v", word, c.errs)
		}
	}
}
