package worker_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestinit/guestinit/spawn"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
	"github.com/guestinit/guestinit/worker/walktest"
)

// ticketLoop is the work of ticket_lock: workers of a set take turns in the order
// in which they drew a ticket. The first shared word is the next ticket, the
// second the one whose turn it is.
func ticketLoop(s *worker.Slab) {
	next, turn := s.Word(0), s.Word(4)
	for !s.Stopped() {
		ticket := atomic.AddUint32(next, 1) - 1
		start := s.Blocks()
		for now := atomic.LoadUint32(turn); now != ticket; now = atomic.LoadUint32(turn) {
			if !s.AwaitChange(turn, now) {
				return
			}
		}
		s.Woken(start)
		s.Work(s.Params[0])
		atomic.AddUint32(turn, 1)
		worker.WakeWaiters(turn, 64)
		s.Pass()
	}
}

func ticketSet(*[worker.MaxParams]uint64) int       { return 3 }
func ticketWords(*[worker.MaxParams]uint64) uintptr { return 8 }

// registerTickets adds the type once, whatever tests run.
var registerTickets = sync.OnceValue(func() error {
	return worker.Register(worker.Type{
		Name:    "ticket_lock",
		Summary: "take turns in the order of arrival; wake latency is each wait for the turn",
		Params:  []worker.Param{{Name: "hold_iters", Kind: worker.Count, Default: 256, Max: 1 << 20, Summary: "pauses per turn"}},

		GroupSize: ticketSet,
		Resource:  worker.SharedMemory, Region: ticketWords,
		Wake: true,
	}, ticketLoop)
})

// A work type of a program's own, in the processes of a workload. A test of the
// program shows that its loop keeps out of the Go runtime:
//
//	func TestTicketLoop(t *testing.T) { walktest.StaysOut(t, ticketLoop) }
func ExampleRegister() {
	if err := registerTickets(); err != nil {
		log.Fatal(err)
	}
	h, err := spawn.Spawn(spawn.Workload{
		Groups: []spec.Group{{Workers: 3, Work: spec.Work{Type: "ticket_lock", Params: map[string]any{"hold_iters": 100}}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	reports, err := h.Run(context.Background(), 100*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	turns := uint64(0)
	for _, r := range reports {
		fmt.Println(r.WorkType, r.Index, r.Completed)
		turns += r.Iterations
	}
	fmt.Println("turns were taken:", turns > 0)
	// Output:
	// ticket_lock 0 true
	// ticket_lock 1 true
	// ticket_lock 2 true
	// turns were taken: true
}

func TestTicketLoop(t *testing.T) { walktest.StaysOut(t, ticketLoop, everythingLoop) }

// everythingLoop uses all that loops are made of.
func everythingLoop(s *worker.Slab) {
	for !s.Stopped() {
		start := worker.Now()
		s.Spin(10)
		s.Work(5000)
		s.Costed(start)
		if !s.Exchange() {
			return
		}
		s.Yield()
		deadline := worker.Now() + int64(s.Params[0])
		if s.SleepUntil(deadline) {
			s.Fired(deadline)
		}
		s.Rested()
		if _, errno := worker.Syscall(1<<20, 0, 0, 0, 0, 0, 0); errno != 0 { // there is no such call
			s.SoftError(errno)
		}
		s.WorkUnits += s.RandomBelow(5)
		s.Pass()
	}
}

var registerEverything = sync.OnceValue(func() error {
	return worker.Register(worker.Type{
		Name: "everything", Family: "test", Summary: "use all there is",
		Params:    []worker.Param{{Name: "sleep", Kind: worker.Duration, Default: uint64(time.Millisecond), Max: uint64(time.Second), Summary: "per pass"}},
		GroupSize: func(*[worker.MaxParams]uint64) int { return 2 }, Resource: worker.PipePair,
		Wake: true, Cost: true, Timer: true, RefuseContainer: "the test says so; use clone_mode fork",
	}, everythingLoop)
})

// TestRegisteredTypes runs types of the program in every mode.
func TestRegisteredTypes(t *testing.T) {
	if err := registerTickets(); err != nil {
		t.Fatal(err)
	}
	if err := registerEverything(); err != nil {
		t.Fatal(err)
	}
	if names := worker.Names(); !slices.Contains(names, "ticket_lock") || !slices.Contains(names, "everything") || names[0] != worker.Types[0].Name {
		t.Errorf("names %q", names)
	}
	for _, mode := range []string{spawn.Fork, spawn.Thread, spawn.Container} {
		t.Run(mode, func(t *testing.T) {
			w := spawn.Workload{CloneMode: mode, Groups: []spec.Group{
				{Workers: 6, Work: spec.Work{Type: "ticket_lock"}}, {Workers: 2, Work: spec.Work{Type: "everything"}}}}
			if mode == spawn.Container { // which everything refuses
				w.CloneMode, w.Groups[0].Pcomm = spawn.Fork, "box"
			}
			h, err := spawn.Spawn(w)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			h.Start()
			for range 100 {
				if time.Sleep(50 * time.Millisecond); !slices.Contains(h.SnapshotIterations(), 0) {
					break
				}
			}
			reports, err := h.StopAndCollect()
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range reports {
				if !r.Completed || r.WorkUnits == 0 || r.Iterations == 0 || r.CPUNs == 0 || r.WakeLatency == nil || r.WakeLatency.Count == 0 {
					t.Errorf("worker %d: %+v, exit %+v", i, r, r.ExitInfo)
				}
				if other := i >= 6; other != (r.TimerLatency != nil && r.TimerLatency.Count > 0) || other != (r.IterationCost != nil && r.IterationCost.Count > 0) || other != (r.SoftErrors["work"] != "") {
					t.Errorf("worker %d: timer %v, cost %v, soft errors %v", i, r.TimerLatency, r.IterationCost, r.SoftErrors)
				}
			}
		})
	}
	w := spawn.Workload{Groups: []spec.Group{{Workers: 2, Pcomm: "box", Work: spec.Work{Type: "everything"}}}}
	if err := w.Validate(); err == nil || !strings.Contains(err.Error(), "the test says so") {
		t.Errorf("in a container: %v", err)
	}
	w.Groups[0] = spec.Group{Workers: 3, Work: spec.Work{Type: "ticket_lok"}}
	if err := w.Validate(); err == nil || !strings.Contains(err.Error(), `did you mean "ticket_lock"`) {
		t.Errorf("a wrong name: %v", err)
	}
}

type method struct{ n uint64 }

func (m *method) loop(s *worker.Slab) { s.Work(m.n) }

// TestRefusedRows registers what cannot be a work type.
func TestRefusedRows(t *testing.T) {
	good := func() worker.Type {
		return worker.Type{Name: "refused", Summary: "never", Params: []worker.Param{{Name: "a", Kind: worker.Count, Max: 1, Summary: "a number"}}}
	}
	n := uint64(os.Getpid())
	closure := func(s *worker.Slab) { s.Work(n) }
	m := &method{n}
	for want, change := range map[string]func(r *worker.Type){
		"name is not":                        func(r *worker.Type) { r.Name = "With Space" },
		"no summary":                         func(r *worker.Type) { r.Summary = "" },
		"one of that name":                   func(r *worker.Type) { r.Name = "spin_wait" },
		"its resource is cgroups":            func(r *worker.Type) { r.Resource = worker.CgroupLeaves },
		"a region and no":                    func(r *worker.Type) { r.Region = ticketWords },
		"an even number":                     func(r *worker.Type) { r.Resource, r.GroupSize = worker.PipePair, ticketSet },
		`parameter 1: the name "a" is taken`: func(r *worker.Type) { r.Params = append(r.Params, r.Params[0]) },
		`the name "type" is taken`:           func(r *worker.Type) { r.Params[0].Name = "type" },
		"parameter a: it has no summary":     func(r *worker.Type) { r.Params[0].Summary = "" },
		"of kind text":                       func(r *worker.Type) { r.Params[0].Kind = worker.Text },
		"without a default":                  func(r *worker.Type) { r.Params[0].Required = true },
		"not within 0 to 1":                  func(r *worker.Type) { r.Params[0].Default = 2 },
		"the index of the last":              func(r *worker.Type) { r.Params[0].Kind = worker.Enum },
		"17 parameters":                      func(r *worker.Type) { r.Params = make([]worker.Param, worker.MaxParams+1) },
	} {
		row := good()
		change(&row)
		if err := worker.Register(row, ticketLoop); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "register work type ") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for name, loop := range map[string]func(*worker.Slab){"no loop": nil, "closure": closure, "method value": m.loop} {
		if err := worker.Register(good(), loop); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if slices.Contains(worker.Names(), "refused") {
		t.Error("a refused row is there")
	}
}

func allocates(s *worker.Slab) {
	for !s.Stopped() {
		leak = append(leak, s.RandomBelow(4))
	}
}

var leak []uint64

func prints(s *worker.Slab) { fmt.Println(s.WorkUnits) }

// TestWalkOfLoops finds what loops of this program must not do.
func TestWalkOfLoops(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := walktest.Load(self)
	if err != nil {
		t.Skip(err) // not amd64
	}
	for _, loop := range []func(*worker.Slab){allocates, prints} {
		if faults := code.Walk(walktest.Name(loop)); len(faults) == 0 {
			t.Errorf("the walk finds nothing in %s", walktest.Name(loop))
		}
	}
	if len(code.Functions()) < 10 {
		t.Errorf("the walk came through %q", code.Functions())
	}
	if _, err := walktest.Load("/proc/self/maps"); err == nil {
		t.Error("a text is a program")
	}
}
