package gdb

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
)

// maxPacket bounds what is between $ and #.
const maxPacket = 0x4000

// Bytes with a meaning (appendix E.1). An escaped byte is XORed with escaped.
const (
	interrupt = 3
	escape    = '}'
	escaped   = 0x20
)

// reader takes gdb's stream apart.
type reader struct{ r *bufio.Reader }

func newReader(r io.Reader) *reader { return &reader{bufio.NewReader(r)} }

// next gives the next packet or interrupt. Acknowledgements are skipped: the
// transport loses nothing.
func (r *reader) next() (message, error) {
	for {
		b, err := r.r.ReadByte()
		switch {
		case err != nil:
			return message{}, err
		case b == interrupt:
			return message{interrupt: true}, nil
		case b == '$':
			return r.packet()
		}
	}
}

// packet reads what follows $. The payload is still escaped: of the packets that
// have binary data, only that is.
func (r *reader) packet() (message, error) {
	var m message
	var sum byte
	for {
		b, err := r.r.ReadByte()
		switch {
		case err != nil:
			return message{}, err
		case b == '$': // the packet before was cut off
			m, sum = message{}, 0
			continue
		case b != '#':
			sum += b
			if len(m.packet) < maxPacket {
				m.packet = append(m.packet, b)
			} else {
				m.bad = true
			}
			continue
		}
		var digits [2]byte
		if _, err := io.ReadFull(r.r, digits[:]); err != nil {
			return message{}, err
		}
		var want [1]byte
		if _, err := hex.Decode(want[:], digits[:]); err != nil || want[0] != sum {
			m.bad = true
		}
		return m, nil
	}
}

// encode frames a payload, escaping what has to be.
func encode(payload []byte) []byte {
	b := []byte{'$'}
	var sum byte
	put := func(c byte) {
		b = append(b, c)
		sum += c
	}
	for _, c := range payload {
		switch c {
		case '$', '#', '*', escape:
			put(escape)
			put(c ^ escaped)
		default:
			put(c)
		}
	}
	return fmt.Appendf(b, "#%02x", sum)
}

// unescape gives the binary data of a packet.
func unescape(b []byte) ([]byte, error) {
	var out []byte
	for {
		i := bytes.IndexByte(b, escape)
		if i < 0 {
			return append(out, b...), nil
		}
		if i+1 == len(b) {
			return nil, errPacket
		}
		out = append(append(out, b[:i]...), b[i+1]^escaped)
		b = b[i+2:]
	}
}
