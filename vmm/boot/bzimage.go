package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Offsets in a bzImage's first sectors, which are those in struct boot_params
// too. Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header", and
// Documentation/arch/x86/zero-page.rst.
const (
	hdrStart         = 0x1f1 // setup_sects, the first field of the setup header
	hdrBootFlag      = 0x1fe
	hdrJump          = 0x200 // its second byte gives the end of the header
	hdrMagic         = 0x202
	hdrVersion       = 0x206
	hdrTypeOfLoader  = 0x210
	hdrLoadFlags     = 0x211
	hdrCode32Start   = 0x214
	hdrRamdiskImage  = 0x218
	hdrRamdiskSize   = 0x21c
	hdrCmdLinePtr    = 0x228
	hdrInitrdAddrMax = 0x22c
	hdrAlignment     = 0x230
	hdrRelocatable   = 0x234
	hdrXLoadFlags    = 0x236
	hdrCmdlineSize   = 0x238
	hdrPayloadOffset = 0x248
	hdrPayloadLength = 0x24c
	hdrSetupData     = 0x250
	hdrInitSize      = 0x260
	// hdrMinEnd is the end of the header in version 2.12, the oldest we read.
	hdrMinEnd = 0x268
	// hdrMaxEnd is where the next field of boot_params begins.
	hdrMaxEnd = 0x290
)

const (
	bootFlag    = 0xaa55
	headerMagic = "HdrS"
	// minVersion is the first whose xloadflags says whether there is a 64-bit
	// entry point (Linux 3.8).
	minVersion = 0x20c
	// elfVersion is what we claim for a vmlinux, which has no header: that of
	// Linux 5.5 and later.
	elfVersion = 0x20f

	loadedHigh    = 1 << 0 // loadflags
	kernel64      = 1 << 0 // xloadflags: XLF_KERNEL_64
	loaderUnknown = 0xff   // type_of_loader: none of the registered ones

	sectorSize = 512
	// minAlign is the least by which a kernel can be moved: __startup_64 in
	// arch/x86/kernel/head64.c stops where the distance isn't a multiple of
	// its large pages.
	minAlign = 2 << 20
)

// isBzImage tells by the first sectors; the rest may still be wrong.
func isBzImage(start []byte) bool {
	return len(start) >= hdrVersion &&
		binary.LittleEndian.Uint16(start[hdrBootFlag:]) == bootFlag &&
		string(start[hdrMagic:hdrMagic+len(headerMagic)]) == headerMagic
}

// newHeader gives the setup header for a kernel that comes without.
func newHeader() []byte {
	h := make([]byte, hdrMinEnd)
	le := binary.LittleEndian
	le.PutUint16(h[hdrBootFlag:], bootFlag)
	h[hdrJump], h[hdrJump+1] = 0xeb, hdrMinEnd-hdrMagic // jmp to the end of the header
	copy(h[hdrMagic:], headerMagic)
	le.PutUint16(h[hdrVersion:], elfVersion)
	h[hdrLoadFlags] = loadedHigh
	le.PutUint32(h[hdrInitrdAddrMax:], elfInitrdMax)
	le.PutUint16(h[hdrXLoadFlags:], kernel64)
	le.PutUint32(h[hdrCmdlineSize:], elfCommandMax)
	return h[hdrStart:]
}

// parseBzImage reads the setup header and the vmlinux in the payload.
func parseBzImage(image []byte) (*Kernel, error) {
	le := binary.LittleEndian
	if len(image) < hdrMaxEnd {
		return nil, errors.New("is a bzImage cut off in its header: build or copy it again")
	}
	if v := le.Uint16(image[hdrVersion:]); v < minVersion {
		return nil, fmt.Errorf("is a kernel with boot protocol %d.%02d, without a 64-bit entry point that it tells of: give one of Linux 3.8 or later", v>>8, v&0xff)
	}
	if image[hdrLoadFlags]&loadedHigh == 0 {
		return nil, errors.New("is a zImage, that loads below 1 MiB: give a bzImage")
	}
	if le.Uint16(image[hdrXLoadFlags:])&kernel64 == 0 {
		return nil, errors.New("is a 32-bit kernel: give one built with CONFIG_64BIT=y")
	}
	end := hdrMagic + int(image[hdrJump+1])
	if end < hdrMinEnd {
		return nil, fmt.Errorf("is a bzImage whose setup header ends at %#x, before %#x: build or copy it again", end, hdrMinEnd)
	}
	payload, err := findPayload(image)
	if err != nil {
		return nil, err
	}
	// The decompressor in the bzImage writes the whole payload inside of the
	// memory that init_size tells of.
	vmlinux, err := decompress(payload, uint64(le.Uint32(image[hdrInitSize:])))
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(vmlinux, []byte("\x7fELF")) {
		return nil, errors.New("is a bzImage whose payload is no ELF file: build or copy it again")
	}
	k, err := parseELF(byteSource(vmlinux))
	if err != nil {
		return nil, fmt.Errorf("is a bzImage whose payload %w", err)
	}
	k.header = bytes.Clone(image[hdrStart:min(end, hdrMaxEnd)])
	k.commandMax = uint64(le.Uint32(image[hdrCmdlineSize:]))
	k.initrdMax = uint64(le.Uint32(image[hdrInitrdAddrMax:]))
	if a := uint64(le.Uint32(image[hdrAlignment:])); image[hdrRelocatable] != 0 && a&(a-1) == 0 {
		k.align = max(a, minAlign)
	}
	return k, nil
}

// findPayload gives the compressed vmlinux with the four bytes after it that
// hold its size (the last four of the stream itself, for gzip).
func findPayload(image []byte) ([]byte, error) {
	le := binary.LittleEndian
	sectors := uint64(image[hdrStart])
	if sectors == 0 {
		sectors = 4 // boot.rst: "for backwards compatibility"
	}
	// Each of the terms is below 2^33.
	off := (sectors+1)*sectorSize + uint64(le.Uint32(image[hdrPayloadOffset:]))
	end := off + uint64(le.Uint32(image[hdrPayloadLength:]))
	if end > uint64(len(image)) {
		return nil, fmt.Errorf("is a bzImage cut off: %d of at least %d bytes; build or copy it again", len(image), end)
	}
	return image[off:end], nil
}
