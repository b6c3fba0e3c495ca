package device

import "io"

// Inspector is a model that can show its state to a person. It is optional.
type Inspector interface {
	// Inspect writes the device's state to w. read reads guest-physical memory
	// from the side: that is no crossing, so no fault breaks it and no trace has
	// it. Inspect changes nothing.
	Inspect(w io.Writer, read func(addr uint64, p []byte) error)
}
