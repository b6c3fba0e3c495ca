// Package gdb serves gdb's remote serial protocol for a guest: gdb's "target
// remote". The guest's CPUs are its threads, addresses are linear.
//
// Everything that it does to the guest goes through package debug, and it serves
// one gdb at a time. It is for those who may do with the guest what they like:
// there is no password in the protocol, so Listen takes the host's own address
// unless it is told another.
//
// The protocol is that of "Debugging with GDB", appendix E.
package gdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"fifovm/vmm/debug"
)

// Config is what a server serves.
type Config struct {
	Session *debug.Session
	// Linux, if not nil, knows where the guest's modules are: for "monitor modules",
	// which writes gdb's commands for their symbols to the file ModuleScript.
	Linux        *debug.Linux
	ModuleScript string
	// Monitor, if not nil, takes the lines of gdb's command "monitor" that are not
	// the server's own.
	Monitor func(line string, w io.Writer) error
	// Kill, if not nil, ends the guest: gdb's command "kill".
	Kill func()
	// Attached, if not nil, is called with true before a gdb that has come has the
	// guest stand still, and with false when it has gone and the guest goes on. What
	// the guest stops for between the two is gdb's business.
	Attached func(on bool)
}

// Listen opens what --gdb says: PORT or :PORT for the host's own, HOST:PORT, or
// the path of a Unix socket, which has a slash in it.
func Listen(address string) (net.Listener, error) {
	if strings.Contains(address, "/") {
		return net.Listen("unix", address)
	}
	if !strings.Contains(address, ":") {
		address = ":" + address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return nil, fmt.Errorf("gdb: %q: want PORT, HOST:PORT or the path of a socket", address)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.Listen("tcp", net.JoinHostPort(host, port))
}

// Serve serves one gdb after the other until ctx is done or the guest has ended,
// and closes l. A guest that gdb connects to stands still, and goes on when gdb
// leaves it.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	defer l.Close() // again, where it is closed below
	ended := cfg.Session.Stopped()
	defer cfg.Session.Forget(ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for range ended { // until the end of the guest, or of Serve
		}
		cancel()
	}()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("gdb: %w", err)
		}
		serveConn(ctx, conn, cfg)
	}
}

// message is what a reader got from gdb.
type message struct {
	interrupt bool
	packet    []byte
	bad       bool // of a wrong checksum, or too long
}

func serveConn(ctx context.Context, conn net.Conn, cfg Config) {
	if cfg.Attached != nil {
		cfg.Attached(true)
		defer cfg.Attached(false)
	}
	s := newServer(conn, cfg)
	defer s.leave()
	defer conn.Close()
	done := make(chan struct{})
	defer close(done)
	messages := make(chan message)
	go func() {
		defer close(messages)
		r := newReader(conn)
		for {
			m, err := r.next()
			if err != nil {
				return
			}
			select {
			case messages <- m:
			case <-done:
				return
			}
		}
	}()
	for !s.closed {
		select {
		case e, ok := <-s.events:
			if !ok { // the end of the guest
				if s.running {
					s.send("W00")
				}
				return
			}
			s.stopped(e)
		case m, ok := <-messages:
			if !ok {
				return
			}
			s.message(m)
		case <-ctx.Done():
			// Events say so as well where the guest has ended.
			if s.running {
				s.send("W00")
			}
			return
		}
	}
}

var errPacket = errors.New("malformed packet")
