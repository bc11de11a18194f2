package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Event is an event that QEMU reported. Reason is data.reason where the event
// has one: "guest-shutdown" and "guest-reset" for SHUTDOWN.
type Event struct {
	Name   string
	Reason string
}

// QMP is a client of QEMU's machine protocol: one command at a time, events
// beside. It is safe for concurrent use.
type QMP struct {
	conn   net.Conn
	events chan Event
	cmd    chan struct{} // holds one token: the right to send a command
	reply  chan qmpMessage
	done   chan struct{}

	mu  sync.Mutex
	err error // why the reader ended
}

const (
	qmpLine    = 1 << 20 // longest line taken from QEMU
	qmpEvents  = 64      // events kept for a slow reader; later ones are dropped
	qmpTimeout = 5 * time.Second
	qmpGreet   = 30 * time.Second // QEMU's start on a busy host included
)

// qmpMessage is any line that QEMU sends: exactly one of the fields is set.
type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// NewQMP starts a client on conn, which it owns from now on. The greeting and
// the capabilities are dealt with by the first command.
func NewQMP(conn net.Conn) *QMP {
	q := &QMP{
		conn:   conn,
		events: make(chan Event, qmpEvents),
		cmd:    make(chan struct{}, 1),
		reply:  make(chan qmpMessage, 1),
		done:   make(chan struct{}),
	}
	go q.read()
	return q
}

// Handshake waits for the greeting and enters command mode; events come only
// after it. It must be called once, before Execute.
func (q *QMP) Handshake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, qmpGreet)
	defer cancel()
	m, err := q.next(ctx)
	if err != nil {
		return fmt.Errorf("read QMP greeting: %w", err)
	}
	if m.QMP == nil {
		return errors.New("read QMP greeting: QEMU sent something else first")
	}
	if err := q.send("qmp_capabilities"); err != nil {
		return fmt.Errorf("execute qmp_capabilities: %w", err)
	}
	if m, err = q.next(ctx); err != nil {
		return fmt.Errorf("execute qmp_capabilities: %w", err)
	}
	q.cmd <- struct{}{}
	return m.failure("qmp_capabilities")
}

// Execute runs a command without arguments and decodes its answer into out,
// which may be nil. A command that times out leaves the client unusable, since
// its answer may still come.
func (q *QMP) Execute(ctx context.Context, command string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, qmpTimeout)
	defer cancel()
	select {
	case <-q.done: // else the choice below is by chance
		return fmt.Errorf("execute %s: %w", command, q.failed())
	default:
	}
	select {
	case <-q.cmd:
	case <-q.done:
		return fmt.Errorf("execute %s: %w", command, q.failed())
	case <-ctx.Done():
		return fmt.Errorf("execute %s: %w", command, ctx.Err())
	}
	if err := q.send(command); err != nil {
		return fmt.Errorf("execute %s: %w", command, err)
	}
	m, err := q.next(ctx)
	if err != nil {
		return fmt.Errorf("execute %s: %w", command, err)
	}
	q.cmd <- struct{}{}
	if err := m.failure(command); err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("execute %s: decode answer: %w", command, err)
	}
	return nil
}

// Status returns the run state: "running", "internal-error", "shutdown", ...
func (q *QMP) Status(ctx context.Context) (string, error) {
	var s struct {
		Status string `json:"status"`
	}
	err := q.Execute(ctx, "query-status", &s)
	return s.Status, err
}

// Quit asks QEMU to end; its answer and its end race, so an end is a success.
func (q *QMP) Quit(ctx context.Context) error {
	err := q.Execute(ctx, "quit", nil)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// Events delivers events; it is closed when the connection ends.
func (q *QMP) Events() <-chan Event { return q.events }

// Close ends the connection.
func (q *QMP) Close() error { return q.conn.Close() }

func (q *QMP) send(command string) error {
	line, err := json.Marshal(map[string]string{"execute": command})
	if err != nil {
		return err
	}
	if err := q.conn.SetWriteDeadline(time.Now().Add(qmpTimeout)); err != nil {
		return err
	}
	_, err = q.conn.Write(append(line, '\n'))
	return err
}

func (q *QMP) next(ctx context.Context) (qmpMessage, error) {
	select {
	case m := <-q.reply:
		return m, nil
	case <-ctx.Done():
		return qmpMessage{}, ctx.Err()
	case <-q.done:
	}
	// An answer right before the end is still an answer.
	select {
	case m := <-q.reply:
		return m, nil
	default:
		return qmpMessage{}, q.failed()
	}
}

func (q *QMP) failed() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// read sorts what QEMU sends until the connection ends.
func (q *QMP) read() {
	defer close(q.events)
	defer close(q.done)
	lines := bufio.NewScanner(q.conn)
	lines.Buffer(make([]byte, 0, 4096), qmpLine)
	for lines.Scan() {
		var m qmpMessage
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			q.end(fmt.Errorf("decode QMP: %w", err))
			return
		}
		if m.Event != "" {
			q.event(m)
			continue
		}
		select {
		case q.reply <- m:
		default: // an answer that nobody asked for
		}
	}
	err := lines.Err()
	if err == nil {
		err = io.EOF
	}
	q.end(err)
}

func (q *QMP) end(err error) {
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
}

func (q *QMP) event(m qmpMessage) {
	var data struct {
		Reason string `json:"reason"`
	}
	// Most events have other data or none; a reason is all that is used.
	_ = json.Unmarshal(m.Data, &data)
	select {
	case q.events <- Event{m.Event, data.Reason}:
	default:
	}
}

// failure turns an error answer into an error.
func (m qmpMessage) failure(command string) error {
	if m.Error != nil {
		return fmt.Errorf("execute %s: %s: %s", command, m.Error.Class, m.Error.Desc)
	}
	return nil
}
