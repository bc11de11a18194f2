package spawn

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// arenaOf makes the shared resources of a workload without any worker.
func arenaOf(t *testing.T, groups ...spec.Group) (*arena, []groupPlan, error) {
	t.Helper()
	w := Workload{Groups: groups}
	plans, err := w.admit()
	if err != nil {
		return nil, nil, err
	}
	theCloner()
	a, err := newArena(plans, 0, 0)
	if err == nil {
		t.Cleanup(func() {
			if err := a.free(); err != nil {
				t.Error(err)
			}
		})
	}
	return a, plans, err
}

// TestRings checks who is connected to whom: stage s reads what stage s − 1
// writes, around each ring, and nothing else (S8).
func TestRings(t *testing.T) {
	a, _, err := arenaOf(t, group(6, "wake_chain", "depth", uint64(3)), group(4, "wake_chain", "depth", uint64(2)))
	if err != nil {
		t.Fatal(err)
	}
	before := []int{2, 0, 1, 5, 3, 4, 7, 6, 9, 8}
	for i, s := range a.slabs {
		var b [1]byte
		if _, err := unix.Write(int(a.slabs[before[i]].WriteFD), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(int(s.ReadFD), b[:]); n != 1 || err != nil || b[0] != byte(i) {
			t.Errorf("worker %d reads %d bytes (%d), %v", i, n, b[0], err)
		}
		if fds := s.FDs[:s.NumFDs]; len(fds) != 2 || !slices.IsSorted(fds) {
			t.Errorf("worker %d owns %v", i, fds)
		}
	}
}

// TestRegionsAreApart checks that sets share a region of their type's size and no
// two sets overlap, whatever stands beside them (S8).
func TestRegionsAreApart(t *testing.T) {
	a, plans, err := arenaOf(t,
		group(4, "futex_ping_pong"), group(6, "producer_consumer_imbalance", "queue_depth_target", uint64(100)),
		group(10, "fan_out_compute"), group(4, "signal_storm"), group(2, "numa_migration_churn"), group(1, "spin_wait"))
	if err != nil {
		t.Fatal(err)
	}
	end, i := uintptr(0), 0
	for g := range plans {
		set, size := plans[g].work.GroupSize(), plans[g].work.RegionBytes()
		for n := range plans[g].group.Workers {
			s := a.slabs[i]
			i++
			switch {
			case size == 0:
			case n%set == 0 && s.Region < end:
				t.Errorf("%s: worker %d: region %#x begins before %#x", plans[g].work.Type.Name, n, s.Region, end)
			case n%set != 0 && s.Region != a.slabs[i-2].Region:
				t.Errorf("%s: worker %d does not share the region of its set", plans[g].work.Type.Name, n)
			}
			if size > 0 {
				end = s.Region + size
			}
			if s.PeerCount != uint32(plans[g].group.Workers) || worker.SlabAt(s.Peers+uintptr(n)*s.PeerStride) != s {
				t.Errorf("%s: worker %d is not where its peers look for it", plans[g].work.Type.Name, n)
			}
		}
	}
	if table := worker.NodeTableAt(a.slabs[len(a.slabs)-2].Region); table.Count != uint64(onlineNodes()) {
		t.Errorf("the node table has %d nodes, the machine %d", table.Count, onlineNodes())
	}
}

// TestBacking gives I/O types all that a path can be.
func TestBacking(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(dir, "small")
	if err := os.WriteFile(small, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _, err := arenaOf(t, group(3, "io_sync_write", "path", file), group(2, "io_rand_read", "path", dir, "file_kib", uint64(70)))
	if err != nil {
		t.Fatal(err)
	}
	const part = (1 << 20) / 3 / ioBlock * ioBlock
	for i, s := range a.slabs[:3] {
		if s.DataBase != uint64(i*part) || s.DataBytes != part || s.DataFDs[0] != a.slabs[0].DataFDs[0] {
			t.Errorf("worker %d has %d bytes from %d of descriptor %d", i, s.DataBytes, s.DataBase, s.DataFDs[0])
		}
	}
	for i, s := range a.slabs[3:] {
		var st unix.Stat_t
		if err := unix.Fstat(int(s.DataFDs[0]), &st); err != nil || st.Size != 70<<10 || st.Nlink != 0 {
			t.Errorf("worker %d: size %d, %d names, %v", i, st.Size, st.Nlink, err)
		}
		if s.DataBase != 0 || s.DataBytes != 68<<10 || i > 0 && s.DataFDs[0] == a.slabs[3].DataFDs[0] {
			t.Errorf("worker %d has %d bytes from %d", i, s.DataBytes, s.DataBase)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", "/dev/null": "neither a directory", small: "less than 65536",
	} {
		_, _, err := arenaOf(t, group(2, "io_convoy", "path", path))
		if err == nil || !strings.Contains(err.Error(), "groups[0]: work.path: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("path %s: %v, want %q", path, err, want)
		}
	}
}

func TestFindCgroup2(t *testing.T) {
	const v1 = "30 24 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n"
	for _, c := range []struct{ mounts, membership, root, own string }{
		{"25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", "0::/\n", "/sys/fs/cgroup", "/"},
		{v1 + "31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n", "3:cpu:/a\n0::/user.slice/x\n", "/sys/fs/cgroup/unified", "/user.slice/x"},
		{v1, "3:cpu:/a\n", "", ""},
		{"short - cgroup2\nx - cgroup2 x\n", "0::/", "", "/"},
	} {
		if root, own := findCgroup2(strings.NewReader(c.mounts), c.membership); root != c.root || own != c.own {
			t.Errorf("%q gives %q and %q", c.mounts, root, own)
		}
	}
}

func TestCgroupTarget(t *testing.T) {
	needCgroups(t)
	for _, bad := range []string{"../x", "a/../../b", "no/such/cgroup"} {
		if _, _, err := arenaOf(t, group(1, "cgroup_attach_storm", "dest", bad)); err == nil {
			t.Errorf("dest %q is accepted", bad)
		}
	}
	a, _, err := arenaOf(t, group(1, "cgroup_churn"))
	if err != nil {
		t.Fatal(err)
	}
	root, own, _ := cgroup2()
	dest, _ := filepath.Rel(filepath.Join(root, own), a.cgroups[0])
	if _, _, err := arenaOf(t, group(1, "cgroup_attach_storm", "dest", filepath.Join(own, dest))); err != nil {
		t.Error(err)
	}
}

// TestSignalIsGivenBack checks that SIGUSR2 does what it did once all handles
// with a signal_storm are gone.
func TestSignalIsGivenBack(t *testing.T) {
	theCloner()
	before := signalAction(t)
	w := Workload{Groups: []spec.Group{group(2, "signal_storm")}}
	var arenas []*arena
	for range 2 {
		plans, err := w.admit()
		if err != nil {
			t.Fatal(err)
		}
		a, err := newArena(plans, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		arenas = append(arenas, a)
		if signalAction(t) == before {
			t.Error("SIGUSR2 is as before while the handle lives")
		}
	}
	for i, a := range arenas {
		if err := a.free(); err != nil {
			t.Error(err)
		}
		if after := signalAction(t) == before; after != (i == 1) {
			t.Errorf("after %d of 2 handles were closed, SIGUSR2 is as before: %v", i+1, after)
		}
	}
}

func TestVectorNote(t *testing.T) {
	phases := []any{map[string]any{"alu_hot": "1ms"}}
	sequence := start(t, group(1, "sequence", "width", "vec128", "phases", phases))
	waitPasses(t, sequence)
	collect(t, sequence)
	if notes := sequence.Notes(); len(notes) != 1 || notes[0] != "sequence: width vec128 ran 128 bits" {
		t.Errorf("sequence: the notes are %q", notes)
	}
	for _, c := range []struct{ width, want string }{
		{"scalar", "width scalar ran 64 bits"}, {"vec128", "width vec128 ran 128 bits"}, {"amx", "width amx is not to be had here, ran "},
		{"vec256", "width vec256 "}, {"vec512", "width vec512 "}, {"widest", "width widest ran "}, // by the CPU; TestWidthsInGuest knows it
	} {
		h := start(t, group(1, "alu_hot", "width", c.width))
		waitPasses(t, h)
		collect(t, h)
		if notes := h.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "alu_hot: "+c.want) {
			t.Errorf("%s: the notes are %q", c.width, notes)
		}
		t.Log(h.Notes())
	}
}

func signalAction(t *testing.T) bare.Action {
	t.Helper()
	action, errno := bare.CurrentAction(unix.SIGUSR2)
	if errno != 0 {
		t.Fatal(errno)
	}
	return action
}
