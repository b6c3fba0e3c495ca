package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakePort is a guest that takes so many bytes and then is gone.
type fakePort struct {
	takes int
	mu    sync.Mutex
	got   strings.Builder
	gone  chan struct{}
}

func newFakePort(takes int) *fakePort { return &fakePort{takes: takes, gone: make(chan struct{})} }

func (p *fakePort) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(b), p.takes-p.got.Len())
	p.got.Write(b[:n])
	if n == len(b) {
		return n, nil
	}
	close(p.gone)
	return n, io.ErrClosedPipe
}

func (p *fakePort) Break() error {
	_, err := p.Write([]byte("^"))
	return err
}

// What a guest did not take, the next one gets, in order.
func TestKeysAcrossGuests(t *testing.T) {
	k := newKeys()
	for _, s := range []string{"ab", "cdef", "g"} {
		k.put([]byte(s), false)
	}
	k.put(nil, false)
	k.put([]byte("h"), false)
	go k.send()
	first, second := newFakePort(4), newFakePort(5)
	k.attach(first)
	<-first.gone
	k.attach(second)
	for range 1000 {
		second.mu.Lock()
		got := second.got.String()
		second.mu.Unlock()
		if got == "efg^h" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("the guests got %q and %q", first.got.String(), second.got.String())
}

func TestKeysLimit(t *testing.T) {
	k := newKeys()
	if !k.put(make([]byte, keysLimit), false) || k.put([]byte{0}, false) {
		t.Error("the limit is not where it should be")
	}
	done := make(chan bool)
	go func() { done <- k.put([]byte{1}, true) }()
	guest := newFakePort(keysLimit + 1)
	go k.send()
	k.attach(guest)
	if !<-done {
		t.Error("who could wait was refused")
	}
}

// The escape sequences, in all the ways that reads may split them.
func TestObey(t *testing.T) {
	const input = "a\x01\x01b\x01zc\x01bd\x01hx\x01Xe\x01"
	for split := range len(input) + 1 {
		screenOut, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		term := newTerminal(t.Context(), os.Stdin, w, func() { left++ })
		escaped := term.obey([]byte(input[:split]), false)
		if escaped = term.obey([]byte(input[split:]), escaped); !escaped || left != 1 {
			t.Errorf("split at %d: escaped %v, left %d times", split, escaped, left)
		}
		var got strings.Builder
		for _, p := range term.keys.waiting {
			if p == nil {
				got.WriteString("^")
			}
			got.Write(p)
		}
		if got.String() != "a\x01bc^dxe" {
			t.Errorf("split at %d: the guest gets %q", split, got.String())
		}
		help := make([]byte, len(escapeHelp))
		if _, err := io.ReadFull(screenOut, help); err != nil || string(help) != escapeHelp {
			t.Errorf("split at %d: %q, %v", split, help, err)
		}
		screenOut.Close()
		w.Close()
	}
}

func TestScreen(t *testing.T) {
	t.Run("stuck", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() // frees the writer
		ctx, cancel := context.WithCancel(context.Background())
		s := newScreen(ctx, w, func() {})
		cancel()
		for range 3 {
			if n, err := s.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}
	})
	t.Run("slow", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s := newScreen(t.Context(), w, func() { t.Error("broken") })
		go func() {
			defer w.Close()
			for range 4 {
				if n, err := s.Write(make([]byte, 1<<16)); n != 1<<16 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			}
		}()
		time.Sleep(50 * time.Millisecond)
		if b, err := io.ReadAll(r); len(b) != 4<<16 || err != nil {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
	t.Run("broken", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		broken := false
		s := newScreen(t.Context(), w, func() { broken = true })
		if _, err := s.Write([]byte("x")); err == nil || !broken || errors.Is(err, io.EOF) {
			t.Errorf("%v, broken %v", err, broken)
		}
	})
}
