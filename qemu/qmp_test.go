package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// script plays QEMU on conn: it sends the greeting, then answers the nth
// command with the nth line or lines, then closes.
func script(conn net.Conn, greeting string, answers ...string) {
	defer conn.Close()
	fmt.Fprint(conn, greeting)
	lines := bufio.NewScanner(conn)
	for _, a := range answers {
		if !lines.Scan() {
			return
		}
		fmt.Fprint(conn, a)
	}
}

const (
	greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}` + "\r\n"
	ok       = `{"return": {}}` + "\r\n"
)

func TestQMP(t *testing.T) {
	ours, theirs := net.Pipe()
	go script(theirs, greeting, ok,
		`{"event": "STOP", "timestamp": {"seconds": 1}}`+"\n"+
			`{"return": {"status": "internal-error", "running": false}}`+"\n",
		`{"error": {"class": "CommandNotFound", "desc": "no such thing"}}`+"\n",
		`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`+"\n"+ok)
	q := NewQMP(ours)
	defer q.Close()
	if err := q.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := q.Status(t.Context()); err != nil || s != "internal-error" {
		t.Errorf("status %q, %v", s, err)
	}
	if err := q.Execute(t.Context(), "frobnicate", nil); err == nil || !strings.Contains(err.Error(), "frobnicate: CommandNotFound: no such thing") {
		t.Errorf("got %v", err)
	}
	if err := q.Quit(t.Context()); err != nil {
		t.Error(err)
	}
	var got []Event
	for e := range q.Events() {
		got = append(got, e)
	}
	if fmt.Sprint(got) != "[{STOP } {SHUTDOWN guest-reset}]" {
		t.Errorf("events %v", got)
	}
	if err := q.Execute(t.Context(), "late", nil); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestQMPHandshakeErrors(t *testing.T) {
	for _, tt := range []struct{ name, greeting, answer, want string }{
		{"silence then end", "", "", "EOF"},
		{"not QMP", "HTTP/1.1 400 Bad Request\r\n", "", "decode QMP"},
		{"answer first", ok, "", "something else"},
		{"refused", greeting, `{"error": {"class": "GenericError", "desc": "busy"}}` + "\n", "busy"},
		{"torn", `{"QMP": {`, "", "decode QMP"},
		{"endless line", strings.Repeat("x", qmpLine+1), "", "token too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			if tt.answer == "" {
				go func() { defer theirs.Close(); fmt.Fprint(theirs, tt.greeting) }()
			} else {
				go script(theirs, tt.greeting, tt.answer)
			}
			q := NewQMP(ours)
			defer q.Close()
			if err := q.Handshake(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		q := NewQMP(ours)
		defer q.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := q.Handshake(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
