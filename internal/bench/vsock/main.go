// Command vsock measures the ways between guest and host: the device in user
// space (package vsock/vhostuser), a virtio-serial port, and, if the environment
// variable VHOST_DEVICE_VSOCK names its binary, vhost-device-vsock. Same QEMU,
// same kernel, same program in the guest. The guests of all ways are up at the
// same time and are measured in turns, a short batch each, so that what else the
// machine does meets all of them. Medians count.
//
// The device is measured twice: with connections of this process, as the
// launcher has them, and through Unix sockets, which is all that the other
// program has: then the device too is a process of its own. Ratios are of the
// latter, each of two batches that follow each other.
//
// Debian sid packages vhost-device-vsock; unpacked with apt-get download and
// dpkg -x it runs on any system with glibc 2.34, and nothing need be installed.
//
// Usage: vsock [-rounds N] [-batches N] KERNEL...
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"text/tabwriter"
	"time"

	"github.com/guestinit/guestinit/kernel"
)

func main() {
	if os.Getpid() == 1 {
		guest()
	}
	boots := flag.Int("rounds", 3, "boots of each kind")
	batches := flag.Int("batches", 5, "measurements of each guest")
	socket := flag.String("socket", "", "be the device of the QEMU that connects here, and do nothing else")
	path := flag.String("uds-path", "", "with -socket: the Unix socket of other programs")
	cid := flag.Uint("guest-cid", 3, "with -socket: the guest's CID")
	flag.Parse()
	var err error
	if *socket != "" {
		err = serveDevice(*socket, *path, uint32(*cid))
	} else {
		err = bench(plan{*boots, *batches, os.Getenv("VHOST_DEVICE_VSOCK")}, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vsock:", err)
		os.Exit(1)
	}
}

// plan is what to measure, and how often.
type plan struct {
	boots, batches int
	daemon         string // vhost-device-vsock; "" for none
}

// fairSize is the size of writes for comparisons: vhost-device-vsock stalls from
// 32 KiB on.
const fairSize = 28 << 10

// The ways, as they are printed.
const (
	wayProcess = "device, in process"
	waySockets = "device, Unix sockets"
	waySerial  = "virtio-serial"
	wayDaemon  = "vhost-device-vsock"
)

// figures is what was measured of one way, a value a batch; none is what it
// does not have.
type figures struct {
	up, down           []float64 // MiB/s from the guest and to it
	connectUp, tripUp  []float64 // µs, begun in the guest
	connectDown, tripD []float64 // µs, begun on the host
}

func bench(p plan, names []string) error {
	if len(names) == 0 {
		return errors.New("name kernels: versions in the cache (6.12) or paths")
	}
	for _, name := range names {
		k, err := kernel.Named(name)
		if err != nil {
			return err
		}
		if err := p.kernel(k); err != nil {
			return fmt.Errorf("kernel %s: %w", k.Release, err)
		}
	}
	return nil
}

func (p plan) kernel(k *kernel.Kernel) error {
	ways := []string{wayProcess, waySockets, waySerial}
	if p.daemon != "" {
		ways = append(ways, wayDaemon)
	}
	all := map[string]*figures{}
	for _, w := range ways {
		all[w] = &figures{}
	}
	for range p.boots {
		if err := p.round(k, ways, all); err != nil {
			return err
		}
	}
	if err := anySize(k); err != nil {
		return fmt.Errorf("writes of any size: %w", err)
	}
	return p.show(os.Stdout, k, ways, all)
}

// round boots a guest for each way and measures them in turns.
func (p plan) round(k *kernel.Kernel, ways []string, all map[string]*figures) error {
	var up []*machine
	defer func() {
		for _, m := range up {
			m.end()
		}
	}()
	for _, w := range ways {
		m, err := boot(context.Background(), k, w, p.daemon)
		if err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
		up = append(up, m)
	}
	for batch := range p.batches {
		for i := range ways {
			at := (i + batch) % len(ways) // no way always comes first
			if err := all[ways[at]].measure(ways[at], up[at]); err != nil {
				return fmt.Errorf("%s: %w", ways[at], err)
			}
		}
	}
	return nil
}

func (f *figures) measure(way string, m *machine) error {
	if way == waySerial {
		return f.serial(m)
	}
	return f.vsock(m)
}

const mib = bulkBytes >> 20

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func (f *figures) vsock(m *machine) error {
	a, err := m.tell(order{Do: "up", Size: fairSize})
	if err != nil {
		return err
	}
	f.up = append(f.up, mib/a.Seconds)
	if a, err = m.tell(order{Do: "trips"}); err != nil {
		return err
	}
	f.connectUp, f.tripUp = append(f.connectUp, us(a.Connect)), append(f.tripUp, us(a.Trip))
	c, err := m.dial(portDrain)
	if err != nil {
		return err
	}
	defer c.Close()
	seconds, err := bulk(c, fairSize)
	if err != nil {
		return err
	}
	f.down = append(f.down, mib/seconds)
	connect, trip, err := connects(func() (net.Conn, error) { return m.dial(portEcho) })
	f.connectDown, f.tripD = append(f.connectDown, us(connect)), append(f.tripD, us(trip))
	return err
}

func (f *figures) serial(m *machine) error {
	link := m.link
	if err := m.start(order{Do: "serial up", Size: fairSize}); err != nil {
		return err
	}
	if _, err := swallow(link); err != nil {
		return err
	}
	a, err := m.answer()
	if err != nil {
		return err
	}
	f.up = append(f.up, mib/a.Seconds)
	if err := m.start(order{Do: "serial down"}); err != nil {
		return err
	}
	seconds, err := bulk(link, fairSize)
	if err != nil {
		return err
	}
	f.down = append(f.down, mib/seconds)
	if _, err := m.answer(); err != nil {
		return err
	}
	if err := m.start(order{Do: "serial trips"}); err != nil {
		return err
	}
	if _, err := io.CopyN(link, link, rounds); err != nil {
		return err
	}
	a, err = m.answer()
	f.tripUp = append(f.tripUp, us(a.Trip))
	return err
}

// anySize moves bytes in writes of all sizes up to 1 MiB, both ways.
func anySize(k *kernel.Kernel) error {
	m, err := boot(context.Background(), k, waySockets, "")
	if err != nil {
		return err
	}
	defer m.end()
	fmt.Printf("kernel %s, writes of other sizes, MiB/s from the guest / to it:", k.Release)
	for _, size := range []int{4 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20} {
		a, err := m.tell(order{Do: "up", Size: size})
		if err != nil {
			return fmt.Errorf("%d bytes: %w", size, err)
		}
		c, err := m.dial(portDrain)
		if err != nil {
			return err
		}
		seconds, err := bulk(c, size)
		c.Close()
		if err != nil {
			return fmt.Errorf("%d bytes: %w", size, err)
		}
		fmt.Printf("  %d KiB %.0f / %.0f", size>>10, mib/a.Seconds, mib/seconds)
	}
	fmt.Println()
	return nil
}

// show prints medians, and the ratios of our device to the others.
func (p plan) show(out io.Writer, k *kernel.Kernel, ways []string, all map[string]*figures) error {
	fmt.Fprintf(out, "kernel %s, %d KiB writes, medians of %d boots, %d batches each\n", k.Release, fairSize>>10, p.boots, p.batches)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tfrom guest MiB/s\tto guest MiB/s\tconnect from guest µs\tto guest µs\tround trip from guest µs\tto guest µs\t")
	columns := func(f *figures) [][]float64 {
		return [][]float64{f.up, f.down, f.connectUp, f.connectDown, f.tripUp, f.tripD}
	}
	for _, way := range ways {
		fmt.Fprint(w, way)
		for _, v := range columns(all[way]) {
			if len(v) == 0 {
				fmt.Fprint(w, "\t-")
			} else {
				fmt.Fprintf(w, "\t%.0f", median(v))
			}
		}
		fmt.Fprintln(w, "\t")
	}
	for _, ratio := range [][2]string{{waySockets, wayDaemon}, {wayProcess, waySerial}} {
		if all[ratio[1]] == nil {
			continue
		}
		fmt.Fprintf(w, "%s : %s", ratio[0], ratio[1])
		ours, theirs := columns(all[ratio[0]]), columns(all[ratio[1]])
		for i := range ours {
			if len(theirs[i]) == 0 {
				fmt.Fprint(w, "\t-")
			} else {
				fmt.Fprintf(w, "\t%.2f", median(quotients(ours[i], theirs[i])))
			}
		}
		fmt.Fprintln(w, "\t")
	}
	return w.Flush()
}

// quotients are those of each batch.
func quotients(a, b []float64) (q []float64) {
	for i := range min(len(a), len(b)) {
		q = append(q, a[i]/b[i])
	}
	return q
}
