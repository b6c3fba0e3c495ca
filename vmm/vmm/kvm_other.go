//go:build !(linux && amd64)

package vmm

import "fifovm/vmm/kvm"

func newKVM(kvm.Config) (Engine, error) { return nil, kvm.ErrUnavailable }
