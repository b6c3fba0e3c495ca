package pci

// The host bridge is the one that QEMU has on machines without a PC chipset.
// Linux has no driver, quirk or early quirk for it, where it has some for each
// of the bridges of real PCs; all that it needs is the class.
const (
	bridgeVendor = 0x1b36   // Red Hat
	bridgeDevice = 0x0008   // PCIe host bridge
	bridgeClass  = 0x060000 // base class 6 bridge, subclass 0 host bridge
)

// NewHostBridge gives the function at 00:00.0. It has nothing to set: all of
// its registers are read-only.
func NewHostBridge() *Config {
	c := new(Config)
	c.Set(RegVendorID, 2, bridgeVendor)
	c.Set(RegDeviceID, 2, bridgeDevice)
	c.Set(RegCommand, 2, CommandMemory|CommandMaster)
	c.Set(RegClass, 3, bridgeClass)
	return c
}
