package vmm

import "fifovm/vmm/kvm"

func newKVM(cfg kvm.Config) (Engine, error) {
	e, err := kvm.New(cfg)
	if err != nil {
		return nil, err // not a nil *kvm.Engine in an Engine
	}
	return e, nil
}
