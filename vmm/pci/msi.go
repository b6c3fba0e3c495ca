package pci

// The MSI capability (PCI Local Bus 3.0, 6.8.1), with 64-bit addresses and
// per-vector masking.
const (
	capIDMSI      = 0x05
	msiControl    = 0x02
	msiAddress    = 0x04 // 64 bits
	msiData       = 0x0c // 16 bits
	msiMask       = 0x10
	msiPending    = 0x14
	msiEnable     = 1 << 0
	msiCapable    = 1 // where the number of vectors that there are is, as a logarithm
	msiGranted    = 4 // and of those that the guest grants
	msiGrantMask  = 7 << msiGranted
	msi64         = 1 << 7
	msiMaskable   = 1 << 8
	msiAddressLow = ^uint64(3)

	maxMSI = 32
)

func (e *Endpoint) addMSI(pointer int) int {
	n := e.id.MSI
	if n == 0 {
		return pointer
	}
	log := uint64(0)
	for 1<<log < n {
		log++
	}
	e.Set(capMSI+msiControl, 2, log<<msiCapable|msi64|msiMaskable)
	e.Allow(capMSI+msiControl, 2, msiEnable|msiGrantMask, 0)
	e.Allow(capMSI+msiAddress, 8, msiAddressLow, 0)
	e.Allow(capMSI+msiData, 2, 0xffff, 0)
	e.Allow(capMSI+msiMask, 4, 1<<n-1, 0)
	return e.addCapability(pointer, capMSI, capIDMSI)
}

func (e *Endpoint) msiEnabled() bool {
	return e.id.MSI != 0 && e.Get(capMSI+msiControl, 2)&msiEnable != 0
}

// granted is how many messages the guest lets the function have: at most those
// that it has.
func (e *Endpoint) granted() int {
	return min(e.id.MSI, 1<<(e.Get(capMSI+msiControl, 2)&msiGrantMask>>msiGranted))
}

func (e *Endpoint) raiseMSI(vector int) {
	e.msi.pending |= 1 << (vector & (e.granted() - 1))
	e.settleMSI()
}

// settleMSI sends what is pending and not held back.
func (e *Endpoint) settleMSI() {
	switch {
	case e.msi.pending == 0:
	case !e.msiEnabled():
		e.msi.pending = 0
	case e.Master():
		send := e.msi.pending &^ uint32(e.Get(capMSI+msiMask, 4))
		e.msi.pending &^= send
		address, data := e.Get(capMSI+msiAddress, 8), uint32(e.Get(capMSI+msiData, 2))
		n := uint32(e.granted())
		for v := range uint32(maxMSI) {
			if send>>v&1 != 0 {
				// The function changes the low bits of the data: as many as tell its
				// messages apart.
				e.backend.SendMessage(address, data&^(n-1)|v&(n-1))
			}
		}
	}
}
