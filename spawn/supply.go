package spawn

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/worker"
)

// supplies is what the work types of a handle need beside memory and
// descriptors, to be removed with it.
type supplies struct {
	cgroups []string // directories, made in this order
	notes   []string // what the reader of the report should know
	signals bool     // holds SIGUSR2

	programs       []*program // of exec workers, in order
	programCgroups []string   // of cgroups, those that programs are born in
	images         [][]byte   // mappings of packProgram
	dirs           []string   // directories with names for programs
}

// supply makes what the work type of a group needs for its workers.
func (a *arena) supply(p *groupPlan, slabs []*worker.Slab) error {
	if len(slabs) == 0 {
		return nil
	}
	switch p.work.Type.Resource {
	case worker.PipePair:
		return a.makePipes(slabs)
	case worker.PipeRing:
		if worker.UsesRing(&p.work.Values) {
			return a.makeRings(slabs, p.work.GroupSize())
		}
	case worker.EventPoll:
		return a.makeEventPolls(slabs, p.work.GroupSize())
	case worker.BackingFile:
		return a.makeBacking(p, slabs)
	case worker.ScratchFile:
		if worker.PhasesUseFile(&p.work.Values) {
			return a.makeScratch(p, slabs)
		}
	case worker.NodeCPUs:
		return fillNodes(worker.NodeTableAt(slabs[0].Region))
	case worker.CgroupLeaves:
		return a.makeLeaves(p, slabs, int(p.work.Values[0]))
	case worker.CgroupTarget:
		return a.makeTarget(p, slabs, p.work.Texts[0])
	case worker.ExecProgram:
		return a.makePrograms(p, slabs)
	case worker.SharedMemory:
		if p.work.Type.Name == "signal_storm" && !a.signals {
			a.signals = true
			return storm.hold()
		}
	}
	return nil
}

// withdraw removes what supply made. The workers have ended.
func (a *arena) withdraw() error {
	errs := []error{a.unpackPrograms()}
	for _, r := range a.programs {
		r.stdout.end(0)
		r.stderr.end(0)
	}
	a.programs, a.programCgroups = nil, nil
	for _, dir := range a.dirs {
		errs = append(errs, os.RemoveAll(dir))
	}
	a.dirs = nil
	for i := len(a.cgroups) - 1; i >= 0; i-- {
		errs = append(errs, removeCgroup(a.cgroups[i]))
	}
	a.cgroups = nil
	if a.signals {
		a.signals = false
		errs = append(errs, storm.release())
	}
	return errors.Join(errs...)
}

// descriptors is how many descriptors supply opens for a group.
func (p *groupPlan) descriptors() int {
	n := p.group.Workers
	switch p.work.Type.Resource {
	case worker.PipePair, worker.PipeRing:
		return 2 * n
	case worker.EventPoll, worker.BackingFile, worker.ScratchFile:
		return n + 2
	case worker.ExecProgram:
		return 4*n + 1
	case worker.CgroupLeaves, worker.CgroupTarget:
		return worker.MaxDataFDs
	}
	return 0
}

// keep has the handle close a descriptor that was made for workers.
func (a *arena) keep(fd int) int {
	a.pipes = append(a.pipes, fd)
	return fd
}

// give makes a descriptor the worker's, under an index.
func give(s *worker.Slab, index, fd int) {
	s.DataFDs[index] = int32(fd)
	own(s, fd)
}

// makeRings gives each stage of a set the reading end of the pipe before it and
// the writing end of its own.
func (a *arena) makeRings(slabs []*worker.Slab, depth int) error {
	for ; len(slabs) >= depth; slabs = slabs[depth:] {
		before, err := a.pipe() // of the last stage
		if err != nil {
			return err
		}
		last := before
		for i := range depth {
			next := last
			if i < depth-1 {
				if next, err = a.pipe(); err != nil {
					return err
				}
			}
			ownPipes(slabs[i], before[0], next[1])
			before = next
		}
	}
	return nil
}

// makeEventPolls gives each set an eventfd and an epoll instance that watches it.
func (a *arena) makeEventPolls(slabs []*worker.Slab, set int) error {
	for ; len(slabs) >= set; slabs = slabs[set:] {
		counter, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("make eventfd: %w", err)
		}
		a.keep(counter)
		instance, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return fmt.Errorf("make epoll instance: %w", err)
		}
		a.keep(instance)
		ev := unix.EpollEvent{Events: unix.EPOLLIN}
		if err := unix.EpollCtl(instance, unix.EPOLL_CTL_ADD, counter, &ev); err != nil {
			return fmt.Errorf("watch eventfd: %w", err)
		}
		for _, s := range slabs[:set] {
			give(s, 0, counter)
			give(s, 1, instance)
		}
	}
	return nil
}

// fillNodes lists the CPUs of the online nodes; a machine that tells of none is
// one node of all CPUs, which needs no moving.
func fillNodes(table *worker.NodeTable) error {
	for _, node := range nodeList() {
		if table.Count == bare.MaxNodes {
			break
		}
		cpus, err := nodeCPUs(node)
		if err != nil {
			return err
		}
		if len(cpus) == 0 {
			continue // memory alone
		}
		if err := setMask(&table.CPUs[table.Count], cpus); err != nil {
			return fmt.Errorf("node %d: %w", node, err)
		}
		table.Count++
	}
	return nil
}

// storm keeps SIGUSR2 harmless for this process while a handle's workers may be
// threads that signal each other with it.
var storm stormSignal

type stormSignal struct {
	mu      sync.Mutex
	holders int
	before  bare.Action
}

func (g *stormSignal) hold() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders++; g.holders > 1 {
		return nil
	}
	var errno unix.Errno
	if g.before, errno = bare.CurrentAction(unix.SIGUSR2); errno == 0 {
		errno = bare.HandleNothing(unix.SIGUSR2)
	}
	if errno != 0 {
		return fmt.Errorf("handle SIGUSR2: %w", errno)
	}
	return nil
}

func (g *stormSignal) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders--; g.holders > 0 {
		return nil
	}
	if errno := g.before.Restore(unix.SIGUSR2); errno != 0 {
		return fmt.Errorf("restore SIGUSR2: %w", errno)
	}
	return nil
}

// refused says why a work type cannot run in a mode.
func refused(t *worker.Type, mode string) error {
	reason := t.RefuseFork
	switch mode {
	case Thread:
		reason = t.RefuseThread
	case Container:
		reason = t.RefuseContainer
	}
	if reason != "" {
		return fmt.Errorf("%s is refused in mode %s: %s", t.Name, modeName(mode), reason)
	}
	return nil
}

func modeName(mode string) string {
	if mode == "" {
		return Fork
	}
	return mode
}
