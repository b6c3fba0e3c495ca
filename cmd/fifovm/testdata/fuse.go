package main

// This file is in no product: tests build fifovm with it in its place (go build
// -overlay).

import (
	"io"

	"github.com/spf13/pflag"

	"fifovm/device"
)

func init() {
	models = append(models, model{"fuse", "blows when it is plugged in again, or looked at", func(*pflag.FlagSet) func() (device.Model, error) {
		return func() (device.Model, error) { return new(fuse), nil }
	}})
}

// fuse is a model with mistakes in it.
type fuse struct{ host device.Host }

func (f *fuse) Info() device.Info {
	return device.Info{Vendor: 0x1234, Device: 0xf05e, Class: 0xff0000, BARs: []device.BAR{{Size: 4096}}, MSI: 1}
}

func (f *fuse) Attach(h device.Host) { f.host = h }

// Reset is the power coming back. The mistake shows a moment later, when the guest
// runs and nobody asks anything of the model.
func (f *fuse) Reset() { f.host.Schedule(f.host.Now()+1_000_000, 0, 0) }

func (f *fuse) Event(uint32, uint64) {
	var wires []int
	wires[f.host.Now()&1]++
}

func (f *fuse) Read(_ int, _ uint64, data []byte) { clear(data) }

func (f *fuse) Write(int, uint64, []byte) {}

func (f *fuse) State() any { return struct{}{} }

func (f *fuse) SetState(decode func(any) error) error { return decode(new(struct{})) }

func (f *fuse) Inspect(io.Writer, func(uint64, []byte) error) {
	var label *string
	_ = *label
}
