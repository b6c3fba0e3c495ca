package boot

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxDictionary bounds what a stream can make its decoder keep. The kernel's
// build uses 128 MiB for xz and zstd (scripts/xz_wrap.sh, scripts/Makefile.lib).
const maxDictionary = 128 << 20

// sizeField is the length of what the kernel's build puts after the compressed
// bytes: their uncompressed size, little endian. (size_append in
// scripts/Makefile.lib. A gzip stream ends in the same field anyway.)
const sizeField = 4

// format is a way in which the kernel's build compresses.
type format struct {
	name  string
	magic string
	// inflate gives exactly size bytes out of stream, or an error.
	inflate func(stream []byte, size int) ([]byte, error)
}

// formats are those of lib/decompress.c.
var formats = []format{
	{"gzip", "\x1f\x8b", inflateGzip},
	{"bzip2", "BZh", streamed(func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil })},
	{"lzma", "\x5d\x00\x00", inflateLZMA},
	{"xz", "\xfd7zXZ\x00", streamed(func(r io.Reader) (io.Reader, error) { return xz.NewReader(r, maxDictionary) })},
	{"lzo", "\x89LZO", nil},
	{"lz4", "\x02\x21\x4c\x18", inflateLZ4},
	{"zstd", "\x28\xb5\x2f\xfd", inflateZstd},
}

func formatOf(start []byte) *format {
	for i := range formats {
		if bytes.HasPrefix(start, []byte(formats[i].magic)) {
			return &formats[i]
		}
	}
	return nil
}

// decompress gives the vmlinux in the payload of a bzImage, of at most limit
// bytes.
func decompress(payload []byte, limit uint64) ([]byte, error) {
	f := formatOf(payload)
	if f == nil || len(payload) < len(f.magic)+sizeField {
		return nil, errors.New("is a bzImage whose payload has no known compression: build or copy it again")
	}
	if f.inflate == nil {
		return nil, fmt.Errorf("is a bzImage compressed with %s, which fifovm cannot read: give its vmlinux, or build it with CONFIG_KERNEL_GZIP, XZ, ZSTD or LZ4", f.name)
	}
	stream := payload[:len(payload)-sizeField]
	size := binary.LittleEndian.Uint32(payload[len(stream):])
	if f.name == "gzip" {
		stream = payload
	}
	if limit = min(limit, maxKernel); uint64(size) > limit {
		return nil, fmt.Errorf("is a bzImage whose payload of %d bytes does not fit the %d that its header asks for: build or copy it again", size, limit)
	}
	out, err := f.inflate(stream, int(size))
	if err != nil {
		return nil, fmt.Errorf("is a bzImage whose %s payload is damaged (%w): build or copy it again", f.name, err)
	}
	return out, nil
}

// streamed makes an inflate function of an io.Reader's constructor.
func streamed(open func(io.Reader) (io.Reader, error)) func([]byte, int) ([]byte, error) {
	return func(stream []byte, size int) ([]byte, error) {
		r, err := open(bytes.NewReader(stream))
		if err != nil {
			return nil, err
		}
		return readExactly(r, size, len(stream))
	}
}

// readExactly reads size bytes that were compressed to n, and the end of the
// stream, where the formats have their checksum. Memory is got for as
// much as such a stream usually holds and after that as data arrives, so that a
// few bytes which claim to be a gigabyte cost nothing.
func readExactly(r io.Reader, size, n int) ([]byte, error) {
	const usual = 16 // to 1: kernels compress 3 to 6 to 1
	out := make([]byte, min(size, usual*n))
	for got := 0; ; {
		m, err := io.ReadFull(r, out[got:])
		if got += m; err != nil {
			return nil, fmt.Errorf("%d of %d bytes: %w", got, size, err)
		}
		if got == size {
			return out, readEnd(r)
		}
		out = append(out, make([]byte, min(size-got, got))...)
	}
}

func readEnd(r io.Reader) error {
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n != 0:
		return errors.New("more bytes than announced")
	case err != io.EOF:
		return err
	}
	return nil
}

func inflateGzip(stream []byte, size int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(stream))
	if err != nil {
		return nil, err
	}
	return readExactly(r, size, len(stream))
}

// inflateLZMA reads the format that came before xz. Its header tells of a
// dictionary that the decoder allocates at once.
func inflateLZMA(stream []byte, size int) ([]byte, error) {
	const dictionary = 1 // offset of its size
	if len(stream) < lzma.HeaderLen {
		return nil, io.ErrUnexpectedEOF
	}
	if d := binary.LittleEndian.Uint32(stream[dictionary:]); d > maxDictionary {
		return nil, fmt.Errorf("dictionary of %d MiB, more than %d", d>>20, maxDictionary>>20)
	}
	r, err := lzma.NewReader(bytes.NewReader(stream))
	if err != nil {
		return nil, err
	}
	return readExactly(r, size, len(stream))
}

func inflateZstd(stream []byte, size int) ([]byte, error) {
	d, err := zstd.NewReader(bytes.NewReader(stream), zstd.WithDecoderMaxWindow(maxDictionary), zstd.WithDecoderMaxMemory(maxKernel))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return readExactly(d, size, len(stream))
}

// lz4Block is the size of each uncompressed block of lz4's legacy format but
// the last (LZ4_DEFAULT_UNCOMPRESSED_CHUNK_SIZE in lib/decompress_unlz4.c).
const lz4Block = 8 << 20

// inflateLZ4 reads lz4's legacy format: the magic, then blocks that each follow
// their compressed size and are independent of each other.
func inflateLZ4(stream []byte, size int) ([]byte, error) {
	const maxRatio = 255 // of the format
	if size/maxRatio > len(stream) {
		return nil, fmt.Errorf("%d bytes cannot hold %d", len(stream), size)
	}
	var blocks [][]byte
	for rest := stream[4:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := uint64(binary.LittleEndian.Uint32(rest))
		if n == 0 || n > uint64(len(rest)-4) {
			return nil, io.ErrUnexpectedEOF
		}
		blocks = append(blocks, rest[4:4+n])
		rest = rest[4+n:]
	}
	if want := (size + lz4Block - 1) / lz4Block; len(blocks) != want {
		return nil, fmt.Errorf("%d blocks for %d bytes: want %d", len(blocks), size, want)
	}
	out := make([]byte, size)
	errs := make([]error, len(blocks))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, b := range blocks {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			dst := out[i*lz4Block : min((i+1)*lz4Block, size)]
			n, err := lz4.UncompressBlock(b, dst)
			if err == nil && n != len(dst) {
				err = io.ErrUnexpectedEOF
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}
