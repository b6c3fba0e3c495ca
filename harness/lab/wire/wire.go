// Package wire is what the lab's init says to the host: frames over a
// byte-clean, one-way channel. A frame is a kind, a length and that many bytes.
//
// It has no acknowledgements and no checksums: the channel is a device that
// QEMU emulates, and a channel that ends without an Exit frame tells that the
// lab broke down.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Kind says what a frame is about.
type Kind byte

// The kinds of frames.
const (
	Ready  Kind = 'r' // the command starts; empty
	Stdout Kind = 'o' // bytes that the command wrote
	Stderr Kind = 'e'
	File   Kind = 'f' // a file to hand back follows; its path in the lab
	Data   Kind = 'd' // bytes of that file; the empty frame ends it
	Pulse  Kind = 'p' // the lab lives: it hears the host and its clock goes; empty
	Failed Kind = 'x' // the lab can't do what it should; a message
	Exit   Kind = 'q' // the last frame: the command's status, see Status
)

// MaxPayload bounds a frame, so that a reader needs no trust.
const MaxPayload = 64 << 10

const headerSize = 5

// Writer writes frames; several goroutines may.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter returns a writer of frames to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w}
}

// Send writes payload as frames of that kind: several if it is long, one if
// it is empty.
func (w *Writer) Send(kind Kind, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		part := payload[:min(len(payload), MaxPayload)]
		payload = payload[len(part):]
		w.buf = append(w.buf[:0], byte(kind), 0, 0, 0, 0)
		binary.LittleEndian.PutUint32(w.buf[1:], uint32(len(part)))
		w.buf = append(w.buf, part...)
		if _, err := w.w.Write(w.buf); err != nil {
			return err
		}
		if len(payload) == 0 {
			return nil
		}
	}
}

// SendExit writes the last frame.
func (w *Writer) SendExit(status int) error {
	return w.Send(Exit, binary.LittleEndian.AppendUint32(nil, uint32(status)))
}

// Stream returns a writer whose bytes go out as frames of that kind.
func (w *Writer) Stream(kind Kind) io.Writer {
	return stream{w, kind}
}

type stream struct {
	w    *Writer
	kind Kind
}

func (s stream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.w.Send(s.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Reader reads frames.
type Reader struct {
	r      io.Reader
	header [headerSize]byte
	buf    []byte
}

// NewReader returns a reader of frames from r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r}
}

// Next returns the next frame; its payload is valid until the next call. The
// error is io.EOF where the channel ends between frames, io.ErrUnexpectedEOF
// where it ends in one, and else the reader's.
func (r *Reader) Next() (Kind, []byte, error) {
	if _, err := io.ReadFull(r.r, r.header[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("frame cut off: %w", err)
		}
		return 0, nil, err
	}
	kind, size := Kind(r.header[0]), binary.LittleEndian.Uint32(r.header[1:])
	switch kind {
	case Ready, Stdout, Stderr, File, Data, Pulse, Failed, Exit:
	default:
		return 0, nil, fmt.Errorf("frame of unknown kind %#02x", r.header[0])
	}
	if size > MaxPayload {
		return 0, nil, fmt.Errorf("frame of %d bytes, more than %d", size, MaxPayload)
	}
	if cap(r.buf) < int(size) {
		r.buf = make([]byte, size)
	}
	payload := r.buf[:size]
	if _, err := io.ReadFull(r.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, fmt.Errorf("frame cut off: %w", err)
	}
	return kind, payload, nil
}

// Status returns what an Exit frame says.
func Status(payload []byte) (int, error) {
	if len(payload) != 4 {
		return 0, fmt.Errorf("exit frame of %d bytes, not 4", len(payload))
	}
	return int(binary.LittleEndian.Uint32(payload)), nil
}

// Job is what the host asks of the lab's init. It lies as JSON in the image,
// at JobPath.
type Job struct {
	Channel string   // the device that the frames go to
	Modules []string // files, in the order to load them
	NeedKVM bool     // fail, rather than run the command without /dev/kvm
	Command []string
	Env     []string
	Fetch   []string // files to hand back after the command
}

// JobPath is where the job lies in the lab.
const JobPath = "/lab/job.json"
