package worker

import (
	"strings"
	"testing"
)

// defaults are the parameters of each work type with what they are if a spec does
// not say: the catalogue that users of other tools know. A default that changes
// changes what existing specs measure.
var defaults = map[string]string{
	"spin_wait":                   "",
	"yield_heavy":                 "",
	"mixed":                       "",
	"bursty":                      "burst_duration=50ms sleep_duration=100ms",
	"idle_churn":                  "burst_duration=1ms sleep_duration=5ms precise_timing=false",
	"sequence":                    "width=widest phases=[{spin: 10ms}, {sleep: 5ms}, {yield: 2ms}, {io: 5ms}, {alu_hot: 5ms}]",
	"alu_hot":                     "width=widest",
	"smt_sibling_spin":            "",
	"ipc_variance":                "hot_iters=100000 cold_iters=1024 period_iters=64",
	"timer_latency":               "interval=1ms skip_missed=false",
	"io_sync_write":               "path= file_kib=16384",
	"io_rand_read":                "path= file_kib=16384",
	"io_convoy":                   "path= file_kib=16384",
	"pipe_io":                     "burst_iters=1024",
	"epoll_storm":                 "producers=1 consumers=2 events_per_burst=32",
	"cache_pressure":              "size_kib=32 stride=64",
	"cache_yield":                 "size_kib=32 stride=64",
	"cache_pipe":                  "size_kib=32 burst_iters=1024",
	"page_fault_churn":            "region_kib=4096 touches_per_cycle=256 spin_iters=64",
	"numa_working_set_sweep":      "region_kib=4096 sweep_period=100ms target_nodes=",
	"numa_migration_churn":        "period=100ms",
	"futex_ping_pong":             "spin_iters=1024",
	"futex_fan_out":               "fan_out=4 spin_iters=1024",
	"fan_out_compute":             "fan_out=4 cache_footprint_kib=256 operations=5 sleep=100µs",
	"wake_chain":                  "depth=4 wake=pipe work_per_hop=100µs",
	"mutex_contention":            "contenders=4 hold_iters=256 work_iters=1024",
	"thundering_herd":             "waiters=7 batches=1000 inter_batch=5ms",
	"producer_consumer_imbalance": "producers=2 consumers=1 produce_rate_hz=1000 consume_iters=4096 queue_depth_target=1024",
	"priority_inversion":          "high_count=1 medium_count=1 low_count=1 hold_iters=4096 work_iters=1024 pi_mode=plain rest=1ms",
	"asymmetric_waker":            "waker_class=cfs wakee_class=cfs burst_iters=1024",
	"rt_starvation":               "rt_workers=1 cfs_workers=1 rt_priority=50 burst_iters=1024",
	"preempt_storm":               "cfs_workers=2 rt_burst_iters=1024 rt_sleep=1ms",
	"nice_sweep":                  "",
	"affinity_churn":              "spin_iters=1024",
	"cross_affinity_churn":        "spin_iters=1024",
	"policy_churn":                "spin_iters=1024",
	"signal_storm":                "signals_per_iter=16 work_iters=1024",
	"fork_exit":                   "",
	"cgroup_churn":                "groups=2 cycle=100ms",
	"cgroup_attach_storm":         "dest= reap=sig_ign",
	"exec":                        "argv= env= cwd=/ output_kib=64 stop_signal=term grace=1s",
	"fault_injection":             "kind=exit after=100ms code=3",
}

func TestDefaults(t *testing.T) {
	for i := range Types {
		var params []string
		info := Describe(&Types[i])
		for _, p := range info.Params {
			params = append(params, p.Name+"="+p.Default)
		}
		want, ok := defaults[info.Name]
		if got := strings.Join(params, " "); got != want || !ok {
			t.Errorf("%s takes %q, want %q", info.Name, got, want)
		}
	}
	if len(defaults) != len(Types) {
		t.Errorf("there are %d types, want %d", len(Types), len(defaults))
	}
}
