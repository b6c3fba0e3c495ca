package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

type frame struct {
	Kind    Kind
	Payload string
}

func readAll(r io.Reader) (frames []frame, err error) {
	fr := NewReader(r)
	for {
		kind, payload, err := fr.Next()
		if err != nil {
			return frames, err
		}
		frames = append(frames, frame{kind, string(payload)})
	}
}

func TestRoundTrip(t *testing.T) {
	long := bytes.Repeat([]byte("\x00\xff\r\n"), MaxPayload/4+1)
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := w.Send(Ready, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Stream(Stdout).Write(long); n != len(long) || err != nil {
		t.Fatalf("wrote %d: %v", n, err)
	}
	if n, err := w.Stream(Stderr).Write(nil); n != 0 || err != nil {
		t.Fatalf("wrote %d: %v", n, err)
	}
	if err := w.Send(Pulse, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.SendExit(137); err != nil {
		t.Fatal(err)
	}
	got, err := readAll(&b)
	if err != io.EOF {
		t.Errorf("ended with %v, not EOF", err)
	}
	want := []frame{
		{Ready, ""},
		{Stdout, string(long[:MaxPayload])},
		{Stdout, string(long[MaxPayload:])},
		{Pulse, ""},
		{Exit, "\x89\x00\x00\x00"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
	if status, err := Status([]byte(want[len(want)-1].Payload)); status != 137 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	if _, err := Status(nil); err == nil {
		t.Error("no error for an exit frame without a status")
	}
}

func TestBadFrames(t *testing.T) {
	for name, b := range map[string]string{
		"header cut off":  "o\x01\x00",
		"payload cut off": "o\x04\x00\x00\x00abc",
		"no payload":      "o\x04\x00\x00\x00",
		"unknown kind":    "?\x00\x00\x00\x00",
		"too long":        "o\xff\xff\xff\xff",
	} {
		if _, err := readAll(bytes.NewReader([]byte(b))); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestReaderFails: what the channel's reader fails with is not taken for an end.
func TestReaderFails(t *testing.T) {
	failure := errors.New("failure")
	const frame = "o\x04\x00\x00\x00abcd"
	for n := range len(frame) {
		_, err := readAll(io.MultiReader(strings.NewReader(frame[:n]), iotest.ErrReader(failure)))
		if !errors.Is(err, failure) {
			t.Errorf("after %d bytes: got %v, want %v", n, err, failure)
		}
	}
}
