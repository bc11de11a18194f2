package worker

import (
	"golang.org/x/sys/unix"

	"github.com/guestinit/guestinit/internal/bare"
)

// The block I/O types: blocks of ioBlock bytes within the worker's part of its
// backing file, from a buffer that direct I/O accepts.
const (
	ioBlock     = 4096
	ioBatch     = 16  // blocks between two fdatasync of io_sync_write and io_convoy
	ioRewriteNs = 1e5 // sleep after each rewrite of sequence's file
)

// ioSyncWrite writes ioBatch blocks one after the other and syncs; wake latency
// is the fdatasync.
func ioSyncWrite(s *Slab) {
	buf, errno := bare.MapPrivate(ioBlock)
	if errno != 0 {
		s.soft(errno)
		return
	}
	fd, at := int(s.DataFDs[0]), uint64(0)
	for !s.Stopped() {
		s.blocks()
		for i := 0; i < ioBatch && !s.Stopped(); i++ {
			s.block(bare.Pwrite(fd, buf, ioBlock, s.DataBase+at))
			at = s.nextBlock(at)
		}
		start := bare.Now()
		s.soft(bare.Fdatasync(fd))
		s.woke(start, bare.Now())
		s.pass()
	}
	bare.Unmap(buf, ioBlock)
}

// ioRandRead reads random blocks; wake latency is the read.
func ioRandRead(s *Slab) {
	buf, errno := bare.MapPrivate(ioBlock)
	if errno != 0 {
		s.soft(errno)
		return
	}
	fd := int(s.DataFDs[0])
	for !s.Stopped() {
		start := s.blocks()
		s.block(bare.Pread(fd, buf, ioBlock, s.randomBlock()))
		s.woke(start, bare.Now())
		s.pass()
	}
	bare.Unmap(buf, ioBlock)
}

// ioConvoy writes in order, reads at random and syncs now and then; wake latency
// is all the I/O of a pass.
func ioConvoy(s *Slab) {
	buf, errno := bare.MapPrivate(ioBlock)
	if errno != 0 {
		s.soft(errno)
		return
	}
	fd, at := int(s.DataFDs[0]), uint64(0)
	for !s.Stopped() {
		start := s.blocks()
		s.block(bare.Pwrite(fd, buf, ioBlock, s.DataBase+at))
		at = s.nextBlock(at)
		s.block(bare.Pread(fd, buf, ioBlock, s.randomBlock()))
		if s.Iterations%ioBatch == 0 {
			s.soft(bare.Fdatasync(fd))
		}
		s.woke(start, bare.Now())
		s.pass()
	}
	bare.Unmap(buf, ioBlock)
}

// block counts a block that was read or written. Without one, for lack of space
// say, the pass yields instead of running hot.
func (s *Slab) block(n int, errno unix.Errno) {
	switch {
	case errno == 0 && n == ioBlock:
		s.WorkUnits++
	case errno == 0:
		s.soft(unix.EIO)
	case errno != unix.EINTR:
		s.soft(errno)
		bare.Yield()
	}
}

func (s *Slab) nextBlock(at uint64) uint64 {
	if at += ioBlock; at+ioBlock > s.DataBytes {
		return 0
	}
	return at
}

func (s *Slab) randomBlock() uint64 {
	return s.DataBase + s.randomBelow(s.DataBytes/ioBlock)*ioBlock
}

// rewriteFile empties the worker's file, writes ioBatch blocks and sleeps a
// little; wake latency is that sleep.
func (s *Slab) rewriteFile() {
	buf, errno := bare.MapPrivate(ioBlock)
	if errno != 0 {
		s.soft(errno)
		s.sleepUntil(bare.Now() + pollNs)
		return
	}
	s.blocks()
	fd := int(s.DataFDs[0])
	s.soft(bare.Ftruncate(fd, 0))
	for i := uint64(0); i < ioBatch && !s.Stopped(); i++ {
		s.block(bare.Pwrite(fd, buf, ioBlock, i*ioBlock))
	}
	bare.Unmap(buf, ioBlock)
	s.sleepFor(ioRewriteNs)
}
