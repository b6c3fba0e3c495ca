package pci

// Where an Endpoint's capabilities are.
const (
	capPower   = 0x40
	capMSI     = 0x50
	capMSIX    = 0x70
	capExpress = 0x80
)

// The power management capability (PCI Power Management 1.2, 3.2). The function
// has D0 and D3hot, and comes back from there with a reset (No_Soft_Reset is 0):
// a driver has to restore everything.
const (
	capIDPower   = 0x01
	pmc          = 2 // capabilities
	pmcVersion12 = 3
	pmcsr        = 4 // control and status
	pmcsrState   = 3

	powerD0 = 0
	powerD3 = 3
)

func (e *Endpoint) addPower(pointer int) int {
	e.Set(capPower+pmc, 2, pmcVersion12)
	e.Allow(capPower+pmcsr, 2, pmcsrState, 0)
	return e.addCapability(pointer, capPower, capIDPower)
}

func (e *Endpoint) power() uint64 { return e.Get(capPower+pmcsr, 2) & pmcsrState }

func (e *Endpoint) setPower(s uint64) {
	e.Set(capPower+pmcsr, 2, e.Get(capPower+pmcsr, 2)&^pmcsrState|s)
}

// The PCI Express capability (PCI Express Base 6.0, 7.5.3): version 2 of the
// structure, of a root complex integrated endpoint. That has no link, and so
// zero in the link's registers.
const (
	capIDExpress      = 0x10
	expressFlags      = 0x02
	expressVersion    = 2
	expressIntegrated = 9 << 4

	deviceCaps       = 0x04
	deviceCapsRoles  = 1 << 15 // role-based error reporting
	deviceCapsFLR    = 1 << 28
	deviceControl    = 0x08
	deviceStatus     = 0x0a
	statusDetected   = 0xf // errors: correctable, non-fatal, fatal, unsupported request
	controlReporting = 0xf // of them
	controlRelaxed   = 1 << 4
	controlNoSnoop   = 1 << 11
	controlReadShift = 12 // maximum size of a read request
	controlReadMask  = 7 << controlReadShift
	controlRead512   = 2 << controlReadShift
	controlFLR       = 1 << 15
)

func (e *Endpoint) addExpress(pointer int) int {
	e.Set(capExpress+expressFlags, 2, expressVersion|expressIntegrated)
	e.Set(capExpress+deviceCaps, 4, deviceCapsRoles|deviceCapsFLR)
	// Payloads are 128 bytes, the least, and that is not to be changed.
	e.Set(capExpress+deviceControl, 2, controlRelaxed|controlNoSnoop|controlRead512)
	e.Allow(capExpress+deviceControl, 2, controlReporting|controlRelaxed|controlNoSnoop|controlReadMask, 0)
	e.Allow(capExpress+deviceStatus, 2, 0, statusDetected)
	return e.addCapability(pointer, capExpress, capIDExpress)
}

// resets tells whether a write asks for a function-level reset. The bit itself
// is never set.
func (e *Endpoint) resets(off int, v uint32) bool {
	const high = capExpress + deviceControl + 1 // the byte with the bit
	return off <= high && v>>(8*(high-off))&(controlFLR>>8) != 0
}
